//! The names of Ansible's connection variables, so that a mistyped one is told
//! and not passed over. What they mean is not known here.

use crate::error::{Diagnostic, Problems, nearest};
use crate::value::Vars;

/// What may follow `ansible_`: what is read here, and what Ansible has beside it
/// that looks alike. Names far from all of these are the user's own, or facts.
const KNOWN: &[&str] = &[
    "become",
    "become_exe",
    "become_flags",
    "become_method",
    "become_pass",
    "become_password",
    "become_user",
    "connection",
    "host",
    "host_key_checking",
    "hostname",
    "password",
    "pipelining",
    "port",
    "private_key_file",
    "python_interpreter",
    "scp_executable",
    "scp_extra_args",
    "sftp_executable",
    "sftp_extra_args",
    "shell_executable",
    "shell_type",
    "ssh_args",
    "ssh_common_args",
    "ssh_executable",
    "ssh_extra_args",
    "ssh_host",
    "ssh_host_key_checking",
    "ssh_pass",
    "ssh_password",
    "ssh_pipelining",
    "ssh_pkcs11_provider",
    "ssh_port",
    "ssh_private_key_file",
    "ssh_retries",
    "ssh_timeout",
    "ssh_transfer_method",
    "ssh_user",
    "sudo_exe",
    "sudo_pass",
    "sudo_user",
    "su_exe",
    "su_pass",
    "su_user",
    "timeout",
    "user",
    "user_id",
    "user_uid",
    "user_gid",
    "user_dir",
];

/// Variables whose names are nearly those of connection variables.
#[must_use]
pub(super) fn mistyped(vars: &Vars) -> Problems {
    let mut problems = Problems::default();
    for (name, node) in vars {
        let Some(rest) = name.strip_prefix("ansible_") else {
            continue;
        };
        if KNOWN.contains(&rest) {
            continue;
        }
        if let Some(near) = nearest(rest, KNOWN.iter().copied()) {
            problems.push(
                Diagnostic::error(format!("unknown connection variable `{name}`"))
                    .at(&node.origin)
                    .hint(format!("did you mean `ansible_{near}`?")),
            );
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Origin;
    use crate::value::{Node, Value};

    fn told(name: &str) -> Vec<String> {
        let origin = Origin::whole("inventory.yml", "x");
        let node = Node::new(Value::Str("1".to_owned()), origin);
        let vars: Vars = [(name.to_owned(), node)].into_iter().collect();
        let found = mistyped(&vars).0;
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mistyped_connection_variable_is_told_with_the_nearest() {
        for (wrong, right) in [
            ("ansible_prot", "ansible_port"),
            ("ansible_conection", "ansible_connection"),
            (
                "ansible_ssh_private_keyfile",
                "ansible_ssh_private_key_file",
            ),
            ("ansible_becme", "ansible_become"),
        ] {
            let said = told(wrong);
            assert_eq!(said.len(), 1, "{wrong}");
            assert!(said[0].contains(right), "{}", said[0]);
        }
    }

    #[test]
    fn facts_and_other_plugins_variables_are_left_alone() {
        for name in [
            "ansible_distribution",
            "ansible_winrm_transport",
            "ansible_network_os",
            "ansible_facts",
            "ansible_hostname",
            "ansible_sftp_extra_args",
            "ansible_become_flags",
            "my_prot",
        ] {
            assert_eq!(told(name), Vec::<String>::new());
        }
    }
}
