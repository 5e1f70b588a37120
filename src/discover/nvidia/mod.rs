//! What `nvidia-smi` prints, turned into facts. One file a kind of output.
//!
//! All parsers are pure and total: any bytes give rows, nothing, or a fault; never a panic. They
//! take lines that they know and pass over others, because drivers add lines and messages of
//! both streams are mixed.

pub mod answers;
pub mod fault;
pub mod list;
pub mod mig;
pub mod mps;
pub mod policy;
pub mod query;
pub mod table;
pub mod vgpu;
pub mod xml;

pub use fault::NvidiaFault;

/// Whether a cell says that there is no such thing on this card.
fn not_there(cell: &str) -> bool {
    matches!(
        cell,
        "[N/A]"
            | "N/A"
            | "[Not Supported]"
            | "Not Supported"
            | "[Requested functionality has been deprecated]"
            | "Requested functionality has been deprecated"
    )
}

/// `Enabled`, `Disabled`, `On`, `Off`; with the `*` that marks a pending change.
fn switch(cell: &str) -> Option<bool> {
    match cell.trim_end_matches('*').trim() {
        "Enabled" | "On" => Some(true),
        "Disabled" | "Off" => Some(false),
        _ => None,
    }
}
