//! Applying and undoing, against the real scripts, real shells and real folders.
//! Each test runs on `dash`, `bash` and `busybox`; one that is missing fails it.

mod accidents;
mod fooled;
mod host;
mod library;
mod limits;
mod rollback;
mod transaction;
mod wire;
