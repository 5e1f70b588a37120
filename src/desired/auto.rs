//! `auto`: what tenants need of each card, by which `strategy: auto` picks a technology.
//!
//! Which one can give it, `strategy` finds out; here are only the words.

use super::block::{Block, Located, wrong_kind};
use crate::error::Origin;

/// `auto`.
#[derive(Debug, Clone, PartialEq)]
pub struct AutoWanted {
    /// `isolation`: what must keep tenants of one card apart.
    pub isolation: Located<Isolation>,
    /// `tenants`: how many share each card.
    pub tenants: Option<Located<u32>>,
    /// `memory_each`: bytes that each of them needs at least.
    pub memory_each: Option<Located<u64>>,
    /// Where the block stands; absent if nobody wrote it.
    pub origin: Option<Origin>,
}

/// `auto.isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// `any`: hardware where the card has it, else software.
    Any,
    /// `hardware`: memory and faults of one tenant are no matter to the others.
    Hardware,
    /// `software`: tenants share a card that one of them can fill or bring down.
    Software,
}

pub(super) fn read(parent: &mut Block<'_, '_>) -> AutoWanted {
    let mut block = parent.child("auto");
    let origin = block.origin.clone();
    let isolation = block.word(
        "isolation",
        Isolation::Any,
        &[
            ("any", Isolation::Any),
            ("hardware", Isolation::Hardware),
            ("software", Isolation::Software),
        ],
    );
    let tenants = block
        .node("tenants")
        .map(|_| block.count("tenants", 1, 1, 1024));
    let memory_each = memory(&mut block);
    block.finish();
    AutoWanted {
        isolation,
        tenants,
        memory_each,
        origin,
    }
}

fn memory(block: &mut Block<'_, '_>) -> Option<Located<u64>> {
    let node = block.node("memory_each")?;
    let bytes = node.as_str().and_then(crate::text::bytes_of);
    if bytes.is_none() {
        let path = block.path_of("memory_each");
        let wanted = "a memory size with its unit such as `9GB`; GB, GiB, MB and MiB are known";
        block.problems.push(wrong_kind(&path, wanted, node));
    }
    Some(Located {
        value: bytes.unwrap_or(1),
        origin: Some(node.origin.clone()),
    })
}
