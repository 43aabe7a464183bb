//! What the audience sees.

use std::io::{IsTerminal, Write};

/// Prints with colours on a terminal, plainly elsewhere.
#[derive(Debug)]
pub(crate) struct Show {
    colours: bool,
}

impl Show {
    pub(crate) fn new() -> Self {
        Self { colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub(crate) fn chapter(&self, title: &str) {
        println!();
        self.paint("1", &format!("── {title} "), &"─".repeat(70_usize.saturating_sub(title.chars().count())));
    }

    pub(crate) fn line(&self, text: &str) {
        println!("   {text}");
    }

    pub(crate) fn command(&self, text: &str) {
        self.paint("36", "   $ ", text);
    }

    pub(crate) fn output(&self, text: &str) {
        self.paint("2", "     ", text);
    }

    pub(crate) fn good(&self, text: &str) {
        self.paint("32", "   ✓ ", text);
    }

    pub(crate) fn bad(&self, text: &str) {
        self.paint("31", "   ✗ ", text);
    }

    /// A line that is written over by the next; in a log nothing.
    pub(crate) fn pulse(&self, text: &str) {
        if self.colours {
            print!("\r   {text}  ");
            // A terminal that went away shows nothing.
            let _ = std::io::stdout().flush();
        }
    }

    pub(crate) fn pulse_end(&self) {
        if self.colours {
            println!();
        }
    }

    fn paint(&self, colour: &str, before: &str, text: &str) {
        if self.colours {
            println!("\x1b[{colour}m{before}{text}\x1b[0m");
        } else {
            println!("{before}{text}");
        }
    }
}
