//! Device nodes of graphics drivers: `/dev/dri/cardN` and `renderDN`, with their places below
//! the card and in `/sys/class/drm`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use crate::sim::host::device_directory;
use crate::sim::machine::Host;

/// Numbers of render nodes begin here.
const FIRST_RENDER: u32 = 128;

/// Gives a function that a graphics driver has taken its nodes, unless it has them.
pub(in crate::sim) fn add(host: &Host, address: &str) -> io::Result<()> {
    let directory = device_directory(address);
    if host.path(format!("{directory}/drm")).exists() {
        return Ok(());
    }
    // The display of the management controller is card0 and has no render node.
    let card = free(host, "card", 1);
    let render = free(host, "renderD", FIRST_RENDER);
    let bus = &address[..7];
    for (node, minor, kind) in [
        (format!("card{card}"), card, "card"),
        (format!("renderD{render}"), render, "render"),
    ] {
        host.write(
            &format!("{directory}/drm/{node}/dev"),
            format!("226:{minor}\n"),
        )?;
        symlink(
            format!("../../../{address}"),
            host.path(format!("{directory}/drm/{node}/device")),
        )?;
        fs::create_dir_all(host.path("/sys/class/drm"))?;
        symlink(
            format!("../../devices/pci{bus}/{address}/drm/{node}"),
            host.path(format!("/sys/class/drm/{node}")),
        )?;
        host.write(&format!("/dev/dri/{node}"), "")?;
        fs::create_dir_all(host.path("/dev/dri/by-path"))?;
        symlink(
            format!("../{node}"),
            host.path(format!("/dev/dri/by-path/pci-{address}-{kind}")),
        )?;
    }
    Ok(())
}

/// Takes a function's nodes away, as the driver does when it lets it go.
pub(in crate::sim) fn remove(host: &Host, address: &str) -> io::Result<()> {
    let folder = host.path(format!("{}/drm", device_directory(address)));
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let node = entry?.file_name();
        let node = node.to_string_lossy();
        let kind = if node.starts_with("card") {
            "card"
        } else {
            "render"
        };
        for path in [
            format!("/sys/class/drm/{node}"),
            format!("/dev/dri/{node}"),
            format!("/dev/dri/by-path/pci-{address}-{kind}"),
        ] {
            fs::remove_file(host.path(path))?;
        }
    }
    fs::remove_dir_all(folder)
}

/// The first number from `start` on that no node has.
fn free(host: &Host, kind: &str, start: u32) -> u32 {
    (start..)
        .find(|number| !host.path(format!("/dev/dri/{kind}{number}")).exists())
        .unwrap_or(start)
}

/// The `drm/cardN` of a function.
pub(super) fn card_folder(host: &Host, address: &str) -> Option<String> {
    let folder = format!("{}/drm", device_directory(address));
    let entries = fs::read_dir(host.path(&folder)).ok()?;
    let mut names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let name = names.find(|name| name.starts_with("card"))?;
    Some(format!("{folder}/{name}"))
}
