//! What each vendor's exporter is: its names, its port, its program, its image.
//!
//! From the vendors' own documentation: dcgm-exporter (`/metrics` on 9400, profiling metrics by
//! CAP_SYS_ADMIN, options of its command line), AMD's device metrics exporter (5000, `/dev/dri`
//! and `/dev/kfd`, `ServerPort` of its configuration, profiling by CAP_PERFMON) and Intel's XPU
//! Manager (29999, `XPUM_*` of its image's start, gunicorn in `/usr/lib/xpum/rest`).

use crate::facts::Vendor;

/// One exporter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Its key in `gpu_exporters`.
    pub(super) key: &'static str,
    /// Whose cards it tells of.
    pub(super) vendor: Vendor,
    /// What people call it.
    pub(super) title: &'static str,
    /// Its image, by a tag that was published.
    pub(super) image: &'static str,
    /// TCP port, inside its container too.
    pub(super) port: u32,
    /// Where its package puts the program.
    pub(super) binary: &'static str,
    /// The package, for who has it not.
    pub(super) package: &'static str,
    /// What metrics of profiling take.
    pub(super) profiling: &'static str,
    /// Names of the container device interface, or nodes, that its container is given.
    pub(super) devices: &'static [&'static str],
    /// Units of its package that it works with.
    pub(super) after: &'static [&'static str],
}

/// All of them, in the order in which they are set up.
pub(super) static KINDS: [Kind; 3] = [
    Kind {
        key: "dcgm",
        vendor: Vendor::Nvidia,
        title: "NVIDIA's DCGM exporter",
        image: "nvcr.io/nvidia/k8s/dcgm-exporter:4.4.2-4.7.1-ubuntu22.04",
        port: 9400,
        binary: "/usr/bin/dcgm-exporter",
        package: "datacenter-gpu-manager-exporter",
        profiling: "CAP_SYS_ADMIN",
        devices: &["nvidia.com/gpu=all"],
        after: &["nvidia-dcgm.service"],
    },
    Kind {
        key: "amd",
        vendor: Vendor::Amd,
        title: "AMD's device metrics exporter",
        image: "docker.io/rocm/device-metrics-exporter:v1.5.4",
        port: 5000,
        binary: "/usr/local/bin/amd-metrics-exporter",
        package: "amdgpu-exporter",
        profiling: "CAP_PERFMON",
        devices: &["/dev/dri", "/dev/kfd"],
        after: &["gpuagent.service"],
    },
    Kind {
        key: "intel",
        vendor: Vendor::Intel,
        title: "Intel's XPU Manager exporter",
        image: "docker.io/intel/xpumanager:v1.2.27",
        port: 29999,
        binary: "/usr/bin/gunicorn",
        package: "xpumanager, and gunicorn",
        profiling: "CAP_SYS_ADMIN",
        devices: &["/dev/dri"],
        after: &["xpum.service"],
    },
];

impl Kind {
    /// The container and the unit that runs it.
    pub(super) fn container(&self) -> String {
        format!("deploy-{}-exporter", self.key)
    }

    /// What Quadlet makes the unit of.
    pub(super) fn container_file(&self) -> String {
        format!("/etc/containers/systemd/{}.container", self.container())
    }

    /// The unit that runs its program; another name, so that neither hides the other.
    pub(super) fn unit(&self) -> String {
        format!("deploy-{}-exporter-host.service", self.key)
    }

    /// That unit's file.
    pub(super) fn unit_file(&self) -> String {
        format!("/etc/systemd/system/{}", self.unit())
    }

    /// What it reads; none where all stands in its arguments.
    pub(super) fn configuration(&self) -> Option<&'static str> {
        match self.vendor {
            Vendor::Nvidia => None,
            Vendor::Amd => Some("/etc/deploy/exporters/amd.json"),
            Vendor::Intel => Some("/etc/deploy/exporters/rest.conf"),
        }
    }
}
