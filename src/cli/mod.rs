//! The command line: settings in, exit code out.
