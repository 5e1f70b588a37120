//! Saved plans on the command line: `keep` collects what `--check --out FILE` writes,
//! `disk` reads and writes the file, `apply` carries it out and `show` prints it. What is
//! in the file, `saved` knows.

pub mod apply;
mod disk;
pub(super) mod keep;
pub mod show;

use crate::apply::scripts_of;
use crate::platform;
use crate::saved::Tool;
use crate::strategy;

/// This tool, as it stands in the plans that it writes.
fn tool() -> Tool {
    let library = strategy::host_library() + &platform::host_library();
    Tool::this(&scripts_of(&library))
}
