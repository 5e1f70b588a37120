//! Telling others what a run found: by a webhook or by a command.
//!
//! `config` is what the user wrote, `news` what there is to tell and what was told already,
//! `message` the words, `send` the way out. Apart from `send` all of it is pure. Which run it
//! was and where the state is kept, the caller says.

mod config;
mod message;
mod news;
mod send;

pub use crate::history::Told;
pub use config::{Channel, Kind, SecretHeader, Url, Way, read};
pub use message::{About, text};
pub use news::{Item, fresh, items};
pub use send::send;
