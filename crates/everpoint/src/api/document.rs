//! The OpenAPI document, made from the table of endpoints and the schemas beside it.

use serde_json::{Map, Value, json};

use crate::config::api::Scope;

use super::routes::{Guard, ROUTES, Route};

/// Shapes of reports and requests, written by hand: they are what other programs rely on.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document. `tls`: the server speaks TLS.
pub(crate) fn document(tls: bool) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.verb.word().to_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Everpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Continuous backup and point-in-time recovery. Reports have the shape that the command \
                            of the same name prints with --json; times are RFC 3339 in UTC.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{
            "url": "/",
            "description": if tls { "This server, with TLS" } else { "This server" },
        }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = parts(route.path).map(path_parameter).collect();
    parameters.extend(route.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "required": false,
            "description": parameter.about,
            "schema": reference(parameter.schema),
        })
    }));
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.about,
        "parameters": parameters,
        "responses": responses(route),
        "security": security(route.guard),
    });
    if let (Some(body), Some(fields)) = (route.body, operation.as_object_mut()) {
        let content = json!({"application/json": {"schema": reference(body)}});
        fields.insert("requestBody".to_owned(), json!({"required": needs_body(body), "content": content}));
    }
    if let (Guard::Scope(scope), Some(fields)) = (route.guard, operation.as_object_mut()) {
        let scope = if scope == Scope::Read { "read" } else { "operate" };
        fields.insert("description".to_owned(), json!(format!("Needs a token of scope {scope}.")));
    }
    operation
}

/// Whether a body of this schema has fields that must be there.
fn needs_body(schema: &str) -> bool {
    schemas()
        .pointer(&format!("/{schema}/required"))
        .and_then(Value::as_array)
        .is_some_and(|all| !all.is_empty())
}

fn schemas() -> Value {
    serde_json::from_str(SCHEMAS).unwrap_or_default()
}

/// Names of the parts of a path that are given.
fn parts(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &'static str) -> Value {
    let schema = match name {
        "id" => "JobId",
        "label" => "Label",
        _ => "Name",
    };
    json!({"name": name, "in": "path", "required": true, "schema": reference(schema)})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn security(guard: Guard) -> Value {
    match guard {
        Guard::Open => json!([]),
        Guard::Scope(_) => json!([{"token": []}]),
    }
}

fn responses(route: &Route) -> Value {
    let (status, schema) = route.gives;
    let content = if schema == "text" {
        json!({"text/plain": {"schema": {"type": "string"}}})
    } else {
        json!({"application/json": {"schema": reference(schema)}})
    };
    let mut responses = Map::new();
    responses.insert(status.to_string(), json!({"description": "As asked", "content": content}));
    for refused in refusals(route) {
        let content = json!({"application/json": {"schema": reference("Error")}});
        let mut response = json!({"description": meaning(refused), "content": content});
        if let (401, Some(fields)) = (refused, response.as_object_mut()) {
            let header = json!({"WWW-Authenticate": {"schema": {"type": "string"}, "required": true}});
            fields.insert("headers".to_owned(), header);
        }
        responses.insert(refused.to_string(), response);
    }
    Value::Object(responses)
}

/// What an endpoint may answer instead.
fn refusals(route: &Route) -> Vec<u16> {
    let mut all = vec![400, 408, 413, 415, 500, 503, 504];
    all.extend(route.refuses);
    if let Guard::Scope(_) = route.guard {
        all.extend([401, 403]);
    }
    if route.body.is_some() {
        all.push(422);
    }
    all.sort_unstable();
    all.dedup();
    all
}

const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request can't be understood",
        401 => "No token, or one that is not valid",
        403 => "The token does not allow it",
        404 => "There is no such cluster, provider, backup or job",
        408 => "The request does not arrive",
        409 => "It can't be done now: it runs already, was not confirmed, or is not configured",
        413 => "The body is too large",
        415 => "The body is not declared as JSON",
        422 => "A field can't be used, or names what can't be restored",
        429 => "The call budget is spent",
        503 => "It may work later",
        504 => "It takes too long",
        _ => "It failed",
    }
}
