//! The words of a play and of a task: those that are understood, and those of
//! Ansible that are not, with what there is instead.

/// Words of a play.
pub(super) const PLAY: &[&str] = &[
    "name",
    "hosts",
    "serial",
    "max_fail_percentage",
    "vars",
    "vars_files",
    "gather_facts",
    "tasks",
    "handlers",
    "become",
    "become_user",
    "tags",
];

/// Words of a task.
pub(super) const TASK: &[&str] = &[
    "name",
    "when",
    "loop",
    "loop_control",
    "register",
    "tags",
    "notify",
    "listen",
    "become",
    "become_user",
    "vars",
    "no_log",
    "check_mode",
    "changed_when",
    "failed_when",
];

/// Words of Ansible's plays that are not there, and what is.
pub(super) const LACKING_IN_PLAY: &[(&str, &str)] = &[
    ("roles", "put the role's tasks into `tasks`"),
    ("pre_tasks", "put them at the beginning of `tasks`"),
    ("post_tasks", "put them at the end of `tasks`"),
    (
        "import_playbook",
        "put the plays into one file, or run the playbooks one after the other",
    ),
    (
        "strategy",
        "every host is planned by itself; use `serial` for batches",
    ),
    ("any_errors_fatal", "use `max_fail_percentage: 0`"),
    (
        "environment",
        "give the command its environment with `env NAME=value …`",
    ),
    ("remote_user", "use the inventory's `ansible_user`, or `-u`"),
    ("connection", "use the inventory's `ansible_connection`"),
    ("port", "use the inventory's `ansible_port`"),
    ("become_method", "root is become by sudo"),
    ("vars_prompt", "use `--extra-vars`"),
    ("collections", "modules are named without a collection"),
    ("module_defaults", "write the parameters at each task"),
    (
        "ignore_unreachable",
        "hosts that cannot be reached never hold up others",
    ),
    (
        "force_handlers",
        "a run that fails is undone, handlers included",
    ),
    ("order", "hosts are taken in the order of the inventory"),
    ("throttle", "use `serial` or `--forks`"),
];

/// Words of Ansible's tasks that are not there, and what is.
pub(super) const LACKING_IN_TASK: &[(&str, &str)] = &[
    (
        "block",
        "write the tasks one below the other, each with its `when`",
    ),
    ("rescue", "a run that fails is undone on the host by itself"),
    ("always", "a run that fails is undone on the host by itself"),
    ("include_tasks", "write the tasks into this file"),
    ("import_tasks", "write the tasks into this file"),
    ("include_role", "write the role's tasks into this file"),
    ("import_role", "write the role's tasks into this file"),
    ("include_vars", "use the play's `vars_files`"),
    ("with_items", "use `loop`"),
    ("with_list", "use `loop`"),
    ("with_dict", "use `loop: \"{{ mapping | dict2items }}\"`"),
    ("with_together", "use `loop: \"{{ a | zip(b) | list }}\"`"),
    ("with_sequence", "use `loop: \"{{ range(1, 5) | list }}\"`"),
    ("with_fileglob", "name the files in `loop`"),
    ("until", "a step is read back until its time is over"),
    ("retries", "a step is read back until its time is over"),
    ("delay", "a step is read back until its time is over"),
    (
        "ignore_errors",
        "a step that may fail has no place in a transaction; use `when`",
    ),
    ("delegate_to", "write a play for that host"),
    ("local_action", "write a play for `localhost`"),
    ("run_once", "write a play for one host"),
    (
        "async",
        "steps run on the host by themselves, whatever happens to the connection",
    ),
    (
        "poll",
        "steps run on the host by themselves, whatever happens to the connection",
    ),
    (
        "environment",
        "give the command its environment with `env NAME=value …`",
    ),
    ("args", "write the parameters below the module"),
    ("action", "use the module's name as the key"),
    ("diff", "use `no_log` to keep content out of the diff"),
    ("throttle", "use `serial` or `--forks`"),
    (
        "any_errors_fatal",
        "use the play's `max_fail_percentage: 0`",
    ),
    ("become_method", "root is become by sudo"),
    ("remote_user", "use the inventory's `ansible_user`, or `-u`"),
    ("timeout", "every step has a time limit of its own"),
];

/// Modules of Ansible that many use, and what there is instead. Their names are
/// told apart from typos.
pub(super) const LACKING_MODULES: &[(&str, &str)] = &[
    ("shell", "use `command` with `argv: [sh, -c, …]`"),
    ("service", "use `systemd`"),
    ("lineinfile", "use `template` or `copy` for the whole file"),
    ("blockinfile", "use `template` or `copy` for the whole file"),
    ("replace", "use `template` or `copy` for the whole file"),
    (
        "apt",
        "install packages before; this program manages what runs on them",
    ),
    (
        "dnf",
        "install packages before; this program manages what runs on them",
    ),
    (
        "yum",
        "install packages before; this program manages what runs on them",
    ),
    (
        "package",
        "install packages before; this program manages what runs on them",
    ),
    ("script", "use `copy` and `command`"),
    ("raw", "use `command`"),
    ("stat", "`file`, `copy` and `template` look by themselves"),
    ("setup", "`gpu_discovery` registers what was seen"),
    ("gather_facts", "`gpu_discovery` registers what was seen"),
    ("uri", "use `command` with curl"),
    ("get_url", "use `command` with curl and `creates`"),
    ("unarchive", "use `command` with tar and `creates`"),
    ("sysctl", "use `copy` for a file in /etc/sysctl.d"),
    ("user", "make users before"),
    ("group", "make groups before"),
    (
        "pause",
        "answer the question of `deploy`, or leave out `--yes`",
    ),
    ("wait_for", "a step is read back until its time is over"),
];

/// What there is instead of a word that is lacking.
pub(super) fn instead(list: &[(&str, &'static str)], word: &str) -> Option<&'static str> {
    list.iter()
        .find(|(name, _)| *name == word)
        .map(|(_, instead)| *instead)
}
