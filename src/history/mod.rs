//! What was done from this machine: a folder a run, with what was asked for and what was told.
//!
//! `entry` is what a run leaves, `store` the folders and the locks, `missed` reckons which
//! scheduled runs never began, `open` since when drift stands, `fleet` how hosts stood over
//! time. Apart from `store` all of it is pure: times and entries are given.
//!
//! Lines are kept as they were printed, as JSON, since runs of older versions are among them.
//! `open` and `fleet` read a few of their keys by name (those of `host_end`, `drift`,
//! `planned_change` and `gpu_slices`); that the printer still writes them so, a test of
//! `cli::record` holds. No other type of line is known here.

mod entry;
mod fleet;
mod missed;
mod open;
mod store;
mod told;

pub use entry::{Asked, Begun, Ended, Entry, EntryId, State};
pub use fleet::{Card, Fleet, Host, Mark, News, Run};
pub use missed::{Missed, missed};
pub use open::{Course, Found, Heard, Mends, Open, OpenDrift};
pub use store::{Kept, Store, Writer};
pub use told::{Memory, Told};
