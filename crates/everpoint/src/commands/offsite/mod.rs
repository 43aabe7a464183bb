//! `offsite`: the daily package.

mod pack;
mod provider;

use everpoint_app::AppError;

use crate::cli::Offsite;
use crate::render::Done;
use crate::session::Session;

pub(crate) use provider::{nothing_sent, push_to, status_of, status_text};

pub(crate) fn run(session: &Session, command: &Offsite) -> Result<Done, AppError> {
    match command {
        Offsite::Status(arguments) => provider::status(session, arguments),
        Offsite::Push(arguments) => provider::push(session, arguments),
        Offsite::List(arguments) => provider::list(session, arguments),
        Offsite::Fetch(arguments) => provider::fetch(session, arguments),
        Offsite::Pack(arguments) => pack::pack(session, arguments),
        Offsite::Unpack(arguments) => pack::unpack(session, arguments),
    }
}
