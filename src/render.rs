//! Templates with Ansible's settings.
