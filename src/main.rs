//! Parses the arguments, runs the command, returns its exit code.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    // Called by the name of a simulated host's tool, this binary is that tool.
    if let Some(status) = deploy::sim::tools::dispatch(&argv) {
        return ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX));
    }
    ExitCode::from(deploy::cli::main())
}
