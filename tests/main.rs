//! The tests that look at `deploy` from outside, in one binary: one file an area.

mod apply;
mod captures;
mod catalog;
mod discover;
mod rooms;
mod strategy;
mod strategy_shell;
mod sim;
mod ssh;
