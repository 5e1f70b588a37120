//! Writes to vGPU attributes in sysfs.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::{create, remove, show};
use crate::sim::machine::Host;

/// What a write of `text` to the attribute at `path` does; nothing if it is none of vGPU's.
pub(in crate::sim) fn write(host: &Host, path: &Path, text: &str) -> Option<io::Result<()>> {
    let mut names = path.iter().rev().filter_map(|name| name.to_str());
    let attribute = names.next()?;
    let folder = names.next()?;
    let above = names.next()?;
    let parent = names.next()?;
    match attribute {
        "create" if above == "mdev_supported_types" => {
            let id = folder
                .strip_prefix("nvidia-")
                .and_then(|id| id.parse().ok());
            Some(change(host, |machine| {
                let id = id.ok_or(Errno::NODEV)?;
                let uuid = uuid(text).ok_or(Errno::INVAL)?;
                create(host, machine, parent, id, Some(&uuid))
            }))
        }
        "remove" if uuid(folder).is_some() => Some(change(host, |machine| {
            if text.trim() != "1" {
                return Err(Errno::INVAL.into());
            }
            remove(host, machine, |vgpu| vgpu.uuid.as_deref() == Some(folder))
        })),
        "current_vgpu_type" if folder == "nvidia" => Some(change(host, |machine| {
            let id = text.trim().parse().map_err(|_| Errno::INVAL)?;
            match id {
                0 => remove(host, machine, |vgpu| vgpu.parent == above),
                id => create(host, machine, above, id, None),
            }
        })),
        _ => None,
    }
}

fn change(
    host: &Host,
    change: impl FnOnce(&mut crate::sim::machine::Machine) -> io::Result<()>,
) -> io::Result<()> {
    host.update(|machine| {
        change(machine)?;
        show(host, machine)
    })
}

/// A UUID, in the kernel's lower case.
fn uuid(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let fits = text.chars().enumerate().all(|(at, c)| match at {
        8 | 13 | 18 | 23 => c == '-',
        _ => c.is_ascii_hexdigit(),
    });
    (text.len() == 36 && fits).then_some(text)
}
