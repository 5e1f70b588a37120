//! Ansible inventories: hosts, groups, variables, and where each value came from.
