//! The tests that look at `deploy` from outside, in one binary: one file an area.

mod apply;
mod captures;
mod catalog;
mod harness;
mod cli;
mod discover;
mod discover_sim;
mod inventory;
mod openssh;
mod rooms;
mod sim;
mod ssh;
mod strategy;
mod strategy_shell;
mod yaml;
mod ssh_private;
mod strategy_sim;
