//! What was read from a host so far, as a plan looks at it.

use std::collections::{BTreeSet, HashMap};

use crate::transport::{FileReply, Output, PathState, Read, Reply};

/// Answers of a host. Equal reads have equal answers within one plan.
#[derive(Debug, Clone, Default)]
pub struct ReadCache {
    /// By path, whatever content was asked to be left out.
    states: HashMap<String, PathState>,
    answers: HashMap<Read, Reply>,
    /// Paths at which nothing is taken to stand.
    cleared: BTreeSet<String>,
}

impl ReadCache {
    /// Takes the answers to some reads; those that the host remembered from an
    /// earlier run count as if they had been asked now.
    pub fn add(&mut self, reads: &[Read], replies: Vec<Reply>) {
        for (read, reply) in reads.iter().zip(replies) {
            self.add_one(read.clone(), reply);
        }
    }

    fn add_one(&mut self, read: Read, reply: Reply) {
        match (&read, reply) {
            (_, Reply::Remembered(pairs)) => {
                for (read, reply) in pairs {
                    // One level: nothing remembered may hold memories.
                    if !matches!(reply, Reply::Remembered(_)) {
                        self.add_one(read, reply);
                    }
                }
            }
            (Read::State { path, .. }, Reply::State(state)) => {
                self.put_state(path, &state);
                self.answers.insert(read, Reply::State(state));
            }
            (_, reply) => {
                self.answers.insert(read, reply);
            }
        }
    }

    /// Takes a path as if nothing stood there, whatever the host says of it: so that what is in
    /// the way of a plan keeps nobody from seeing the rest.
    pub fn clear(&mut self, path: &str) {
        self.states.insert(path.to_owned(), PathState::Absent);
        self.cleared.insert(path.to_owned());
    }

    /// An answer with content is worth more than one of the same file without.
    fn put_state(&mut self, path: &str, state: &PathState) {
        if self.cleared.contains(path) {
            return;
        }
        let poorer = matches!(state, PathState::File { content: None, .. });
        if poorer
            && let Some(PathState::File {
                content: Some(_),
                sha256: known,
                ..
            }) = self.states.get(path)
            && let PathState::File { sha256, .. } = state
            && known == sha256
        {
            return;
        }
        self.states.insert(path.to_owned(), state.clone());
    }

    /// What stands at a path.
    #[must_use]
    pub fn state(&self, path: &str) -> Option<&PathState> {
        self.states.get(path)
    }

    /// Whether exactly this was answered.
    #[must_use]
    pub fn has(&self, read: &Read) -> bool {
        self.answers.contains_key(read)
    }

    /// What a command said.
    #[must_use]
    pub fn output(&self, read: &Read) -> Option<&Output> {
        match self.answers.get(read)? {
            Reply::Command(output) => Some(output),
            _ => None,
        }
    }

    /// What reading a file gave.
    #[must_use]
    pub fn file(&self, read: &Read) -> Option<&FileReply> {
        match self.answers.get(read)? {
            Reply::File(file) => Some(file),
            _ => None,
        }
    }

    /// What a pattern matched.
    #[must_use]
    pub fn glob(&self, read: &Read) -> Option<&[String]> {
        match self.answers.get(read)? {
            Reply::Glob(paths) => Some(paths),
            _ => None,
        }
    }
}
