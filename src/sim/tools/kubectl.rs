//! `kubectl`: the real one, with a cluster behind it, on machines that have one.

use std::io;

use super::{Call, Outcome};
use crate::sim::kube;

pub(super) fn run(call: &Call<'_>) -> io::Result<Outcome> {
    match &call.host.load()?.spec.kubernetes {
        Some(spec) => Ok(Outcome {
            status: kube::run(call.host, spec, call.args)?,
            ..Outcome::silent()
        }),
        None => Ok(Outcome::err("sh: 1: kubectl: not found\n", 127)),
    }
}
