//! `deploy content`: what is shipped, and writing it out to be changed.

use crate::cli::Failure;
use crate::cli::args::ContentVerb;
use crate::content::{self, Content, Folder};
use crate::report;
use crate::report::exit::Exit;

/// Runs `deploy content`.
///
/// # Errors
/// The folder cannot be written to.
pub fn run(verb: &ContentVerb) -> Result<Exit, Failure> {
    let mut text = String::new();
    match verb {
        ContentVerb::List => {
            let content = Content::shipped();
            for folder in Folder::ALL {
                for name in content.names(folder) {
                    text += &format!("{}/{name}\n", folder.name());
                }
            }
        }
        ContentVerb::Export { dir } => {
            let done = content::export(dir)?;
            for path in &done.written {
                text += &format!("wrote {}\n", path.display());
            }
            for path in &done.kept {
                text += &format!("kept  {} (it is there already)\n", path.display());
            }
        }
    }
    report::data(&text);
    Ok(Exit::Done)
}
