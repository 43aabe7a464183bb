//! `man`: manual pages, made from the same description as `--help`.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use everpoint_app::AppError;

use crate::cli::documented;
use crate::render::Done;

pub(crate) fn run(directory: Option<&Path>) -> Result<Done, AppError> {
    let command = documented();
    let Some(directory) = directory else {
        let page =
            page(&command).map_err(|error| AppError::io("make", Path::new("the manual page"), error))?;
        return Ok(Done::plain(page));
    };
    let wrap = |error| AppError::io("write manual pages into", directory, error);
    std::fs::create_dir_all(directory).map_err(wrap)?;
    write(&command, directory).map_err(wrap)?;
    Ok(Done::plain(format!("manual pages are in {}", directory.display())))
}

fn write(command: &Command, directory: &Path) -> io::Result<()> {
    std::fs::write(directory.join(format!("{}.1", title(command))), page(command)?)?;
    command.get_subcommands().try_for_each(|below| write(below, directory))
}

/// `everpoint-key-rotate`.
fn title(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: &Command) -> io::Result<String> {
    let version = command.get_version().unwrap_or_default();
    let man = Man::new(command.clone())
        .title(title(command))
        .source(format!("Everpoint {version}"))
        .manual("Everpoint".to_owned());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend(synopsis(command).into_bytes());
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(more) = command.get_after_help() {
        page.extend(more_sections(&more.to_string()).into_bytes());
    }
    if title(command) != "everpoint" {
        page.extend_from_slice(b".SH \"SEE ALSO\"\n\\fBeverpoint\\fR(1)\n");
    }
    Ok(tidied(&String::from_utf8_lossy(&page)))
}

/// Each section comes with the definitions of the first; before possible values an empty line is broken twice.
fn tidied(page: &str) -> String {
    let definition = |line: &str| line.starts_with(".ie ") || line.starts_with(".el ");
    let mut lines = page.lines();
    let mut out: Vec<&str> = lines.by_ref().take(2).collect();
    out.extend(lines.filter(|line| !definition(line)));
    out.join("\n").replace(".br\n\n.br\n", ".br\n").replace(".SH Commands\n", ".SH COMMANDS\n") + "\n"
}

/// The line of `--help`: options have a section of their own.
fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    format!(".SH SYNOPSIS\n{}\n", escaped(usage))
}

/// Headings end with a colon; what is indented stays line by line.
fn more_sections(text: &str) -> String {
    let (mut out, mut plain, mut verbatim) = (String::new(), false, false);
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|it| !it.starts_with(' ') && it.len() < 20);
        let indented = line.starts_with(' ');
        if verbatim && !indented {
            out.push_str(".fi\n.RE\n");
            verbatim = false;
        }
        if let Some(heading) = heading {
            out.push_str(&format!(".SH \"{}\"\n", escaped(&heading.to_uppercase())));
            plain = true;
        } else if line.is_empty() {
            out.push_str(".PP\n");
        } else {
            if !plain {
                out.push_str(".SH NOTES\n");
                plain = true;
            }
            if indented && !verbatim {
                out.push_str(".RS 2\n.nf\n");
                verbatim = true;
            }
            out.push_str(&escaped(line.strip_prefix("  ").unwrap_or(line)));
            out.push('\n');
        }
    }
    if verbatim {
        out.push_str(".fi\n.RE\n");
    }
    out
}

/// As roff shows it unchanged.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &Command, look: &mut dyn FnMut(&str, &str)) {
        look(&title(command), &page(command).unwrap());
        command.get_subcommands().for_each(|below| each(below, look));
    }

    #[test]
    fn pages_hold_what_is_said_and_nothing_of_their_making() {
        let mut titles = Vec::new();
        each(&documented(), &mut |title, page| {
            titles.push(title.to_owned());
            for part in [".TH", ".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", "\"Everpoint 0"] {
                assert!(page.contains(part), "{title}: {page} lacks {part}");
            }
            for leftover in [
                "see more with",
                "SH EXTRA",
                "subcommand",
                "SUBCOMMAND",
                "<subcommands>",
                "fetch\\-via",
                "\n.br\n\n.br",
                "\n.ie",
            ] {
                assert!(!page.contains(leftover), "{title}: {leftover} in {page}");
            }
        });
        assert!(titles.iter().any(|title| title == "everpoint-key-rotate"), "{titles:?}");
        assert!(!titles.iter().any(|title| title.contains("prefetch")), "{titles:?}");
        let restore = documented().find_subcommand("restore").map(page).unwrap().unwrap();
        assert!(restore.contains("everpoint restore [OPTIONS] <CLUSTER> <DIRECTORY>"), "{restore}");
        assert!(restore.contains(".SH \"EXAMPLES\"\n.RS 2\n.nf\neverpoint restore"), "{restore}");
    }
}
