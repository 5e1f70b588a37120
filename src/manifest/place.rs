//! Where a field of an object was written by the user.
//!
//! An object is made of a block of variables whose keys mostly have the names of the fields,
//! without what only the API needs around them: of `spec.template.spec.domain.cpu.cores` the
//! block has `cores`. So the way is gone as far as the block knows it, and what it does not know
//! is passed over.

use crate::error::Origin;
use crate::value::Node;

use super::Part;

/// The place of a field, or of the nearest mapping around it.
pub(super) fn of<'v>(block: &'v Node, path: &[Part]) -> &'v Origin {
    let mut node = block;
    for part in path {
        let inner = match part {
            Part::Key(key) => node.as_map().and_then(|map| map.get(key)),
            Part::Item(number) => {
                let items = node.as_seq().unwrap_or_default();
                if let Some(item) = items.get(*number) {
                    node = item;
                }
                continue;
            }
        };
        if let Some(entry) = inner {
            node = &entry.node;
        }
    }
    &node.origin
}
