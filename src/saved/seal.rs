//! Keeps secrets out of a saved plan.
//!
//! A step that holds a secret is saved without scripts and payload, and with a keyed hash
//! of all of it. When the plan is applied the host is planned anew, and only what has the
//! same hash takes the step's place. The key stands in the same file: it keeps equal
//! secrets in different files from having equal hashes, and is no protection of a secret
//! that can be guessed.

use std::collections::BTreeMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::plan::HostPlan;
use crate::step::{Step, StepId};
use crate::text::hex;
use crate::value::Vars;

/// What secrets are hashed with: 32 bytes in hexadecimal, another for each file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A key of random bytes.
    #[must_use]
    pub fn new(random: &[u8; 32]) -> Self {
        Self(hex(random))
    }

    /// The keyed hash of a text that belongs to `name`.
    #[must_use]
    pub fn hash(&self, name: &str, text: &str) -> String {
        // HMAC takes keys of any length, so that there is no error here.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()) else {
            return String::new();
        };
        for part in [name, text] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        hex(&mac.finalize().into_bytes())
    }

    fn of_step(&self, step: &Step) -> String {
        // Our own types have text keys only, so that writing them cannot fail.
        let text = serde_json::to_string(step).unwrap_or_default();
        self.hash(&step.id.0, &text)
    }
}

/// What became of a plan whose secrets were filled in again.
#[derive(Debug, Clone, PartialEq)]
pub enum Resealed {
    /// The plan as it was when it was saved.
    Same(Box<HostPlan>),
    /// Steps whose secrets, or what is done with them, are not what they were.
    Differs(Vec<String>),
}

/// The plan without its secrets, and the hashes of the steps that hold them.
pub(super) fn seal(plan: &HostPlan, key: &Key) -> (HostPlan, BTreeMap<StepId, String>) {
    let mut plan = plan.clone();
    let mut seals = BTreeMap::new();
    for step in plan.steps.iter_mut().filter(|step| step.secret) {
        seals.insert(step.id.clone(), key.of_step(step));
        *step = emptied(step);
    }
    if let Some(applied) = &mut plan.applied {
        applied.withhold(|name, value| key.hash(name, value));
    }
    (plan, seals)
}

fn emptied(step: &Step) -> Step {
    let (id, title, change) = (step.id.clone(), step.title.clone(), step.change.clone());
    Step {
        class: step.class,
        phase: step.phase,
        secret: step.secret,
        timeout_s: step.timeout_s,
        ..Step::new(id, &step.task, title, change)
    }
}

impl super::Work {
    /// What is done on a host, as it is saved.
    #[must_use]
    pub fn new(
        discovery: crate::desired::Discovery,
        bound: super::Bound,
        plan: &HostPlan,
        reads: Vec<crate::transport::Read>,
        key: &Key,
    ) -> Self {
        let (plan, seals) = seal(plan, key);
        Self {
            discovery,
            bound,
            plan,
            seals,
            reads,
        }
    }

    /// Whether the host must be planned anew before the plan can be carried out.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        !self.seals.is_empty()
    }

    /// Fills the values of extra variables into what will be recorded on the host, where they
    /// were given again; what is not recorded is taken as it is written at the time.
    pub fn record_extra(plan: &mut HostPlan, extra: &Vars, key: &Key) {
        if let Some(applied) = &mut plan.applied {
            applied.fill_in(extra, |name, value| key.hash(name, value));
        }
    }

    /// Fills the secrets in, from a plan of the same host that was made just now.
    #[must_use]
    pub fn filled(&self, now: &HostPlan, key: &Key) -> Resealed {
        let mut plan = self.plan.clone();
        let mut differing = Vec::new();
        for step in &mut plan.steps {
            let Some(seal) = self.seals.get(&step.id) else {
                continue;
            };
            match now.steps.iter().find(|new| new.id == step.id) {
                Some(new) if key.of_step(new) == *seal => *step = new.clone(),
                Some(_) => differing.push(format!(
                    "`{}` would be made with another content than was planned",
                    step.title
                )),
                None => differing.push(format!("`{}` is no longer planned", step.title)),
            }
        }
        match differing.is_empty() {
            true => Resealed::Same(Box::new(plan)),
            false => Resealed::Differs(differing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Discovery;
    use crate::saved::{Bound, Work};
    use crate::shell::{Command, Script};
    use crate::step::{Change, Payload};

    fn secret_step(content: &str) -> Step {
        let change = Change::Action {
            what: "a command".to_owned(),
        };
        Step {
            secret: true,
            apply: Script::one(Command::new("login").arg(content)),
            payload: vec![Payload {
                name: "p".to_owned(),
                content: content.into(),
            }],
            ..Step::new(
                StepId("command:login".to_owned()),
                "login",
                "run a command".to_owned(),
                change,
            )
        }
    }

    fn plan(content: &str) -> HostPlan {
        let change = Change::Action {
            what: "true".to_owned(),
        };
        let open = Step {
            apply: Script::one(Command::new("true")),
            ..Step::new(StepId("x".to_owned()), "t", "do it".to_owned(), change)
        };
        HostPlan {
            steps: vec![open, secret_step(content)],
            ..HostPlan::default()
        }
    }

    #[test]
    fn a_secret_is_left_out_and_filled_in_again_only_if_it_is_the_same() {
        let key = Key::new(&[7; 32]);
        let work = Work::new(
            Discovery::default(),
            Bound::default(),
            &plan("hunter2"),
            Vec::new(),
            &key,
        );
        let text = serde_json::to_string(&work).expect("it can be written");
        assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"));
        assert!(work.is_sealed());
        let Resealed::Same(whole) = work.filled(&plan("hunter2"), &key) else {
            panic!("it is the same");
        };
        assert_eq!(*whole, plan("hunter2"));
        let Resealed::Differs(why) = work.filled(&plan("hunter3"), &key) else {
            panic!("it is another");
        };
        assert_eq!(
            why,
            ["`run a command` would be made with another content than was planned"]
        );
        let gone = work.filled(&HostPlan::default(), &key);
        assert!(matches!(gone, Resealed::Differs(why) if why[0].contains("no longer planned")));
    }

    #[test]
    fn equal_secrets_have_other_hashes_in_another_file() {
        let one = Key::new(&[1; 32]).hash("a", "b");
        assert_ne!(one, Key::new(&[2; 32]).hash("a", "b"));
        assert_ne!(one, Key::new(&[1; 32]).hash("ab", ""));
        assert_eq!(one.len(), 64);
    }
}
