//! `deploy schema`: what the lines of `--output json` look like, as JSON Schemas.

use crate::error::Diagnostic;
use crate::report::exit::Exit;
use crate::report::line::Kind;
use crate::report::{self, schema};

use super::args::SchemaArgs;
use super::{Failure, pretty};

/// Prints one schema, one for any line, or the list of them.
///
/// # Errors
/// No line is called so.
pub(super) fn run(args: &SchemaArgs) -> Result<Exit, Failure> {
    let text = match &args.kind {
        Some(word) => pretty(&schema::of(kind(word)?)),
        None if args.all => pretty(&schema::any()),
        None => {
            let row = |kind: Kind| format!("{:<16}{}\n", kind.word(), kind.title());
            Kind::ALL.map(row).concat()
        }
    };
    report::data(&text);
    Ok(Exit::Done)
}

fn kind(word: &str) -> Result<Kind, Diagnostic> {
    Kind::named(word).ok_or_else(|| {
        Diagnostic::error(format!("no line has the type `{word}`"))
            .did_you_mean(word, Kind::ALL.map(Kind::word))
            .or_hint("`deploy schema` lists them")
    })
}
