//! `nvidia-smi -q -x`, as far as slicing needs it.
//!
//! The schema changes with every branch, so this looks for elements by name and takes their
//! text; it is no XML parser and knows neither attributes nor entities beyond the five of XML.

use crate::facts::{Fact, GpuUuid, MigMode, PciAddress};

use super::query::modes;

/// A card in the document.
#[derive(Debug, Clone, PartialEq)]
pub struct XmlGpu {
    /// `id` of the element: where it is plugged in.
    pub pci: PciAddress,
    /// `product_name`
    pub name: String,
    /// `uuid`
    pub uuid: GpuUuid,
    /// `minor_number`: the N of `/dev/nvidiaN`.
    pub minor: Option<u32>,
    /// `mig_mode`; absent for `N/A`.
    pub mig: Fact<(MigMode, MigMode)>,
    /// `mig_devices`: GPU instance and compute instance of each.
    pub mig_devices: Vec<(u32, u32)>,
}

/// Driver version and cards.
#[must_use]
pub fn parse(text: &str) -> (Option<String>, Vec<XmlGpu>) {
    let driver = element(text, "driver_version").map(unescape);
    let cards = text
        .split("<gpu id=\"")
        .skip(1)
        .filter_map(|rest| {
            let (id, rest) = rest.split_once('"')?;
            let body = rest.split("</gpu>").next()?;
            card(id, body)
        })
        .collect();
    (driver, cards)
}

fn card(id: &str, body: &str) -> Option<XmlGpu> {
    let mig = match element(body, "mig_mode") {
        Some(mode) => modes(
            element(mode, "current_mig").unwrap_or("N/A"),
            element(mode, "pending_mig").unwrap_or("N/A"),
        ),
        None => Fact::Absent,
    };
    let devices = element(body, "mig_devices").unwrap_or("");
    let mig_devices = devices
        .split("<mig_device>")
        .skip(1)
        .filter_map(|device| {
            let id = |name| element(device, name)?.parse().ok();
            Some((id("gpu_instance_id")?, id("compute_instance_id")?))
        })
        .collect();
    Some(XmlGpu {
        pci: id.parse().ok()?,
        name: unescape(element(body, "product_name")?),
        uuid: GpuUuid(unescape(element(body, "uuid")?)),
        minor: element(body, "minor_number").and_then(|text| text.parse().ok()),
        mig,
        mig_devices,
    })
}

/// The text between the first `<name>` and the `</name>` after it.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inner, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inner.trim())
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}
