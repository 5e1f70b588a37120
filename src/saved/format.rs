//! The document that a saved plan stands in: JSON with a head that says which form it has,
//! which build of the tool has written it, and the hash of the rest.
//!
//! The hash finds a file that was cut or edited by mistake. It is no signature: whoever can
//! write the file can write the hash, which is why others must not be able to.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::SavedPlan;
use crate::text::hex;

/// What the document says of itself.
const FORMAT: &str = "deploy-plan";
/// Version of the form; raised when a field changes its meaning.
const VERSION: u64 = 1;

/// The tool that has written a plan. Scripts of steps call functions that the tool brings
/// along, so that a plan is applied by the same build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its version.
    pub version: String,
    /// Hash of the scripts that it puts on hosts.
    pub build: String,
}

impl Tool {
    /// This tool, which brings these scripts.
    #[must_use]
    pub fn this(scripts: &str) -> Self {
        let hash = hex(&Sha256::digest(scripts.as_bytes()));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: hash.get(..16).unwrap_or_default().to_owned(),
        }
    }
}

/// Why a document is no plan that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not even say that it is one.
    #[error("this is no saved plan of deploy")]
    NotOne,
    /// It ends too early.
    #[error("the plan is cut: it ends at line {line}, column {column}")]
    Cut {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Another version has written it.
    #[error("the plan has form {found}, and this version of deploy reads form {VERSION}")]
    OtherForm {
        /// What it says.
        found: String,
    },
    /// It is not what was written.
    #[error("the plan was changed after it was written")]
    Edited,
    /// It is whole, but not in our form.
    #[error("the plan cannot be read: {0}")]
    Malformed(String),
}

impl Damage {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotOne => "`deploy gpu --check --out FILE` writes one",
            Self::Cut { .. } => "copy the whole file again, or make the plan again",
            Self::OtherForm { .. } => {
                "use the version of deploy that has written it, or make the plan again"
            }
            Self::Edited => {
                "a plan is applied as it was made or not at all: change the variables and make it again"
            }
            Self::Malformed(_) => "make the plan again",
        }
    }
}

/// The plan as a document, with a newline at its end.
#[must_use]
pub fn write(plan: &SavedPlan, tool: &Tool) -> String {
    // Our own types have text keys only, so that writing them cannot fail.
    let plan = serde_json::to_value(plan).unwrap_or_default();
    let document = json!({
        "format": FORMAT,
        "version": VERSION,
        "tool": tool,
        "sha256": sum(&plan),
        "plan": plan,
    });
    format!("{document}\n")
}

/// Reads a document.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &[u8]) -> Result<(SavedPlan, Tool), Damage> {
    let document: Value = serde_json::from_slice(text).map_err(|error| {
        let starts_as_ours = text.starts_with(b"{\"format\":\"deploy-plan\"");
        match (error.is_eof() && starts_as_ours, starts_as_ours) {
            (true, _) => Damage::Cut {
                line: error.line(),
                column: error.column(),
            },
            (false, true) => Damage::Edited,
            (false, false) => Damage::NotOne,
        }
    })?;
    if document.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(Damage::NotOne);
    }
    match document.get("version") {
        Some(version) if version.as_u64() == Some(VERSION) => {}
        other => {
            let found = other.map_or_else(|| "none".to_owned(), ToString::to_string);
            return Err(Damage::OtherForm {
                found: found.chars().take(40).collect(),
            });
        }
    }
    let Some(plan) = document.get("plan") else {
        return Err(Damage::Edited);
    };
    if document.get("sha256").and_then(Value::as_str) != Some(sum(plan).as_str()) {
        return Err(Damage::Edited);
    }
    let malformed = |error: serde_json::Error| Damage::Malformed(error.to_string());
    let tool = document.get("tool").cloned().unwrap_or_default();
    let tool = Tool::deserialize(tool).map_err(malformed)?;
    let plan = SavedPlan::deserialize(plan).map_err(malformed)?;
    Ok((plan, tool))
}

/// The hash of the plan as it stands in the document: keys in their order, no blanks.
fn sum(plan: &Value) -> String {
    hex(&Sha256::digest(plan.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::saved::{Bound, End, Key, SavedHost, Source, Work};

    fn plan() -> SavedPlan {
        let key = Key::new(&[3; 32]);
        let work = Work::new(
            Default::default(),
            Bound::default(),
            &Default::default(),
            Vec::new(),
            &key,
        );
        SavedPlan {
            id: "20261123T100000Z-000001".to_owned(),
            created: jiff::Timestamp::UNIX_EPOCH,
            who: "ada".to_owned(),
            from: "desk".to_owned(),
            source: Source::default(),
            key,
            batches: vec![vec!["h1".to_owned()]],
            max_fail_percentage: Some(12.5),
            hosts: vec![SavedHost {
                name: "h1".to_owned(),
                end: End::Changed,
                problem: Vec::new(),
                cards: Vec::new(),
                work: Some(work),
            }],
        }
    }

    fn tool() -> Tool {
        Tool::this("scripts")
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let text = write(&plan(), &tool());
        assert_eq!(parse(text.as_bytes()), Ok((plan(), tool())));
    }

    #[test]
    fn what_is_cut_edited_or_of_another_form_is_told_apart() {
        let text = write(&plan(), &tool());
        let half = &text[..text.len() / 2];
        assert!(matches!(
            parse(half.as_bytes()),
            Err(Damage::Cut { line: 1, .. })
        ));
        let edited = text.replace("\"ada\"", "\"eve\"");
        assert_eq!(parse(edited.as_bytes()), Err(Damage::Edited));
        let broken = text.replace("\"ada\"", "ada");
        assert_eq!(parse(broken.as_bytes()), Err(Damage::Edited));
        let later = text.replacen("\"version\":1", "\"version\":2", 1);
        let found = "2".to_owned();
        assert_eq!(parse(later.as_bytes()), Err(Damage::OtherForm { found }));
        for other in ["", "{}", "hello", "[1]", "{\"format\":\"deploy\"}"] {
            assert_eq!(parse(other.as_bytes()), Err(Damage::NotOne), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_byte_can_be_changed_without_notice(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = write(&plan(), &tool()).into_bytes();
            let at = at.index(bytes.len() - 1);
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            // What stands around the plan is not part of it, but the tool is looked at.
            if let Ok((found, _)) = parse(&bytes) {
                prop_assert_eq!(found, plan());
            }
        }
    }
}
