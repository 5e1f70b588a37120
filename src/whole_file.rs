//! A file that is written as a whole or not at all: beside, to the disk, then renamed; and one
//! that is read although somebody else may have put something there. What is in it, and who may read it, the caller says.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Makes or replaces a file with these permissions. A link in its place is replaced and not
/// followed. Whatever somebody has left who was killed here is in nobody's way: the name
/// beside is another one each time.
///
/// # Errors
/// It cannot be written, or a device, a pipe or a socket is there; nothing is left beside it
/// then.
pub fn write(
    path: &Path,
    mode: u32,
    put: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // A device that is renamed over is gone for all: `/dev/null` is easily typed.
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_symlink()) {
        return Err(io::Error::other("what is there is no regular file"));
    }
    let chance = std::hash::RandomState::new().build_hasher().finish();
    let mut beside = path.as_os_str().to_owned();
    // At its end, so that no collector takes it for a file of its own.
    beside.push(format!(".new{chance:016x}"));
    let beside = Path::new(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    let done = put(&mut file)
        .and_then(|()| file.flush())
        .and_then(|()| file.set_permissions(Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(beside, path));
    if done.is_err() {
        let _ = fs::remove_file(beside);
    }
    done
}

/// Opens a file to be read. Nobody waits for the other end of a pipe that lies in its place,
/// and no link is followed.
///
/// # Errors
/// It cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_has_its_mode_whatever_was_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.prom");
        for mode in [0o644, 0o600] {
            write(&path, mode, |file| file.write_all(b"text")).expect("it is written");
            let meta = fs::metadata(&path).expect("it is there");
            assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (mode, 4));
        }
        let failed = write(&path, 0o600, |file| {
            file.write_all(b"ha")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).expect("it is there"), b"text");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        assert!(write(&socket, 0o600, |_| Ok(())).is_err());
        assert!(!fs::metadata(&socket).expect("it is there").is_file());
        fs::remove_file(&socket).expect("ours");
        assert!(write(&folder.path().join("no/x"), 0o600, |_| Ok(())).is_err());
    }
}
