//! `deploy` slices the GPUs of a fleet over SSH.
//!
//! The modules below stand in reading order: what everything is made of, what
//! the user wrote, how a host is reached, what was seen, what is wanted, what
//! differs, how it is changed, and how it is told. `tests/rooms.rs` holds the
//! direction in which they may use each other.

pub mod error;
pub mod schedule;
pub mod secret;
pub mod shell;
pub mod text;
pub mod value;
pub mod whole_file;

pub mod content;
pub mod inventory;
pub mod yaml;

pub mod transport;

pub mod catalog;
pub mod discover;
pub mod facts;
pub mod manifest;

pub mod desired;
pub mod module;
pub mod playbook;
pub mod render;
pub mod step;
pub mod strategy;

pub mod diff;
pub mod drift;
pub mod plan;
pub mod platform;

pub mod apply;

pub mod event;
pub mod fleet;
pub mod history;
pub mod notify;
pub mod report;
pub mod saved;

pub mod sim;

pub mod cli;
