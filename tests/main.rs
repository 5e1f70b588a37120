//! The tests that look at `deploy` from outside, in one binary: one file an area.

mod apply;
mod captures;
mod catalog;
mod cli;
mod discover;
mod discover_sim;
mod flow;
mod handlers_owed;
mod harness;
mod hosts;
mod inventory;
mod openssh;
mod plan_checks;
mod real_guard;
mod real_hosts;
mod real_reboot;
mod rooms;
mod sim;
mod sim_units;
mod ssh;
mod ssh_private;
mod strategy;
mod strategy_power;
mod strategy_shell;
mod strategy_sim;
mod yaml;
