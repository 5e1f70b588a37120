//! What was done from this machine: a folder a run, with what was asked for and what was told.
//!
//! `entry` is what a run leaves, `store` the folders and the locks, `missed` reckons which
//! scheduled runs never began, `open` since when drift stands, `fleet` how hosts stood over time. Apart from `store` all of it
//! is pure: times and entries are given. What the lines of a run mean is not known here but
//! for what is reckoned of them; they are kept as they were printed.

mod entry;
mod fleet;
mod missed;
mod open;
mod store;
mod told;

pub use entry::{Asked, Begun, Ended, Entry, EntryId, State};
pub use fleet::{Card, Fleet, Host, Mark, News, Run};
pub use missed::{Missed, missed};
pub use open::{Found, Heard, Open, OpenDrift};
pub use store::{Kept, Store, Writer};
pub use told::{Memory, Told};
