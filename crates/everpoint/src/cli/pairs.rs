//! Arguments of two parts.

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it like ticket=4711".to_owned()),
    }
}

pub(super) fn parse_map(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if new.starts_with('/') && (old.starts_with('/') || is_oid(old)) => {
            Ok((old.to_owned(), new.to_owned()))
        }
        _ => {
            Err("write it like /old/directory=/new/directory, both absolute; or oid=/new/directory"
                .to_owned())
        }
    }
}

fn is_oid(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}
