//! Listens to events and prints them; decides the exit code.
//!
//! The only room that writes to the terminal. `diagnostic` draws findings about
//! files, `human` tells a run as text, `json` as one object a line, `exit` knows
//! the numbers, `escape` keeps a host's text from steering the terminal.

pub mod diagnostic;
pub mod escape;
pub mod exit;
