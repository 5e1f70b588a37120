//! Ansible-shaped playbooks: plays, tasks, handlers, with positions.
