//! The file of a saved plan: readable and writable by its owner only, written beside and
//! renamed, never through a link. Steps in it are done as root, so that a file which
//! somebody else could have written is not read.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Diagnostic, Problems};
use crate::report;
use crate::saved::{self, SavedPlan, Tool};

/// Most bytes of a plan; the plan of a large fleet has a few million.
const MOST: u64 = 1 << 30;

/// Reads a plan.
///
/// # Errors
/// It cannot be read, is no plan, or somebody else could have written it.
pub(super) fn read(path: &Path) -> Result<(SavedPlan, Tool), Problems> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        Problems::from(
            Diagnostic::error(format!("the plan {shown} cannot be read: {error}"))
                .hint("`deploy gpu --check --out FILE` writes one"),
        )
    };
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    if !meta.is_file() {
        return Err(Diagnostic::error(format!("{shown} is no file")).into());
    }
    let ours = rustix::process::geteuid().as_raw();
    if meta.uid() != ours && meta.uid() != 0 {
        let message = format!(
            "{shown} belongs to another user (uid {}), who could have changed what is done as root",
            meta.uid()
        );
        let hint = "look at it with `deploy plan show` as its owner, and copy it";
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    if meta.mode() & 0o022 != 0 {
        let message = format!(
            "{shown} can be written by others (mode {:04o}), who could have changed what is done as root",
            meta.mode() & 0o7777
        );
        let hint = format!("if nobody did: `chmod 600 {shown}`");
        return Err(Diagnostic::error(message).hint(hint).into());
    }
    if meta.mode() & 0o044 != 0 {
        let message = format!(
            "{shown} can be read by others (mode {:04o}); it shows the content of files",
            meta.mode() & 0o7777
        );
        let warning = Diagnostic::warning(message).hint(format!("`chmod 600 {shown}`"));
        report::problems(&warning.into());
    }
    let mut text = Vec::new();
    file.take(MOST).read_to_end(&mut text).map_err(cannot)?;
    saved::parse(&text).map_err(|damage| {
        Diagnostic::error(format!("{shown}: {damage}"))
            .hint(damage.hint())
            .into()
    })
}

/// Whether a plan can be written there, before any host is asked.
///
/// # Errors
/// It cannot.
pub(super) fn check(path: &Path) -> Result<(), Diagnostic> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => {
            let message = format!("{} is no plain file", path.display());
            let hint = "a plan is written to a file of its own, never through a link";
            return Err(Diagnostic::error(message).hint(hint));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(cannot_write(path, &error)),
    }
    let beside = beside(path);
    create(&beside).map_err(|error| cannot_write(path, &error))?;
    let _ = fs::remove_file(beside);
    Ok(())
}

/// Writes a plan, whole or not at all.
///
/// # Errors
/// Says why it cannot be written.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Diagnostic> {
    check(path)?;
    let beside = beside(path);
    let put = || -> std::io::Result<()> {
        let mut file = create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    put().map_err(|error| {
        if error.kind() != ErrorKind::AlreadyExists {
            let _ = fs::remove_file(&beside);
        }
        cannot_write(path, &error)
    })
}

fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".tmp{}", std::process::id()));
    path.with_file_name(name)
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::error(format!(
        "the plan {} cannot be written: {error}",
        path.display()
    ))
    .hint("the folder must be there and writable; the file in it is replaced as a whole")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_plan_is_for_its_owner_and_replaces_what_was_there_but_no_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p");
        for text in ["one", "two"] {
            write(&path, text).expect("it is written");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
            let mode = fs::metadata(&path).expect("it is there").mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(write(&link, "three").is_err());
        assert!(write(folder.path(), "three").is_err());
        assert!(check(&folder.path().join("no/p")).is_err());
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "two");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn a_plan_that_others_can_write_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p");
        write(&path, "no plan").expect("it is written");
        let said = |mode: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            read(&path).expect_err("it is no plan").0[0].message.clone()
        };
        assert!(said(0o600).contains("no saved plan"));
        assert!(said(0o644).contains("no saved plan"));
        assert!(said(0o664).contains("can be written by others (mode 0664)"));
        assert!(said(0o602).contains("can be written by others"));
    }
}
