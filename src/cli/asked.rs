//! What a run that is kept was asked to do, from the command line: names of extra variables and
//! no values.

use std::path::{Path, absolute};

use crate::cli::args::{HostArgs, KeepArgs, MendTo, OnFailure, PlayArgs, RunsVerb, Verb};
use crate::history::Asked;
use crate::inventory::parse_extra_vars;

/// What a verb was asked to do, where its runs are kept.
pub(super) fn asked(verb: &Verb) -> Option<(Asked, KeepArgs)> {
    Some(match verb {
        Verb::Gpu(args) => (of_play("gpu", args), args.keep.clone()),
        Verb::Run(args) => {
            let asked = Asked {
                playbook: Some(whole(&args.playbook)),
                ..of_play("run", &args.play)
            };
            (asked, args.play.keep.clone())
        }
        Verb::Apply(args) => {
            let asked = Asked {
                verb: "apply".to_owned(),
                plan: Some(whole(&args.file)),
                inventory: args.inventory.iter().map(|path| whole(path)).collect(),
                limit: args.limit.clone(),
                extra_vars: names(&args.extra_vars),
                flags: [
                    flags(&[("--check", args.check)]),
                    on_failure(args.on_failure),
                ]
                .concat(),
                ..Asked::default()
            };
            (asked, args.keep.clone())
        }
        Verb::Drift(args) => {
            let given = [
                ("--remediate", args.remediate),
                ("--to wanted", args.to == MendTo::Wanted),
                ("--yes", args.yes),
                ("--allow-reboot", args.allow_reboot),
            ];
            let asked = Asked {
                playbook: args.playbook.as_deref().map(whole),
                tags: args.tags.clone(),
                skip_tags: args.skip_tags.clone(),
                flags: flags(&given),
                ..of_hosts("drift", &args.hosts)
            };
            (asked, args.keep.clone())
        }
        Verb::Rollback(args) => {
            let mut asked = Asked {
                flags: flags(&[
                    ("--anyway", args.anyway),
                    ("--check", args.check),
                    ("--yes", args.yes),
                ]),
                ..of_hosts("rollback", &args.hosts)
            };
            asked.flags.extend(with_value("--run", args.run.as_deref()));
            (asked, args.keep.clone())
        }
        Verb::Runs(args) => match &args.verb {
            Some(RunsVerb::Undo { id, args }) => {
                let mut asked = Asked {
                    flags: flags(&[
                        ("--anyway", args.anyway),
                        ("--check", args.check),
                        ("--yes", args.yes),
                    ]),
                    ..of_hosts("rollback", &args.of.hosts)
                };
                asked.flags.extend(with_value("--run", Some(id)));
                (asked, KeepArgs::default())
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn of_play(verb: &str, args: &PlayArgs) -> Asked {
    let given = [
        ("--check", args.check),
        ("--yes", args.yes),
        ("--allow-reboot", args.allow_reboot),
    ];
    let mut asked = Asked {
        tags: args.tags.clone(),
        skip_tags: args.skip_tags.clone(),
        flags: flags(&given),
        ..of_hosts(verb, &args.hosts)
    };
    asked
        .flags
        .extend(with_value("--resume", args.resume.as_deref()));
    asked.flags.extend(on_failure(args.on_failure));
    asked
}

fn of_hosts(verb: &str, args: &HostArgs) -> Asked {
    Asked {
        verb: verb.to_owned(),
        inventory: args.inventory.iter().map(|path| whole(path)).collect(),
        project: args.project.as_deref().map(whole),
        limit: args.limit.clone(),
        shard: args.shard.map(|shard| shard.to_string()),
        extra_vars: names(&args.extra_vars),
        ..Asked::default()
    }
}

fn flags(given: &[(&str, bool)]) -> Vec<String> {
    let set = given.iter().filter(|(_, set)| *set);
    set.map(|(flag, _)| (*flag).to_owned()).collect()
}

fn with_value(flag: &str, value: Option<&str>) -> Option<String> {
    value.map(|value| format!("{flag} {value}"))
}

fn on_failure(what: OnFailure) -> Vec<String> {
    match what {
        OnFailure::RollbackHost => Vec::new(),
        other => vec![format!("--on-failure {}", other.word())],
    }
}

/// A path that means the same elsewhere; lists of hosts such as `a,b,` are no path.
fn whole(path: &Path) -> String {
    let is_list = path.to_string_lossy().contains(',') && !path.exists();
    let whole = match is_list {
        true => path.to_owned(),
        false => absolute(path).unwrap_or_else(|_| path.to_owned()),
    };
    whole.to_string_lossy().into_owned()
}

/// The names of extra variables, and their files; no value, for it may be a secret.
fn names(given: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for one in given {
        match one.strip_prefix('@') {
            Some(file) => names.push(format!("@{}", whole(Path::new(file)))),
            None => {
                let (vars, _) = parse_extra_vars(std::slice::from_ref(one));
                names.extend(vars.iter().map(|(name, _)| name.clone()));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn words(line: &[&str]) -> String {
        let cli = Cli::try_parse_from([&["deploy"], line].concat()).expect("it parses");
        asked(&cli.verb).expect("it is kept").0.words()
    }

    #[test]
    fn a_record_has_no_value_of_a_variable() {
        let said = words(&[
            "gpu",
            "-i",
            "/a.yml",
            "-e",
            "token=s3cret",
            "-e",
            "{\"x\": {\"y\": \"s3cret\"}}",
            "-ez=s3cret",
            "-e",
            "@/vars.yml",
            "--check",
            "-t",
            "a,b",
        ]);
        assert_eq!(
            said,
            "deploy gpu -i /a.yml --tags a,b -e token=… -e x=… -e z=… -e @/vars.yml --check"
        );
    }

    #[test]
    fn verbs_that_change_hosts_or_look_for_drift_are_kept() {
        assert_eq!(
            words(&[
                "drift",
                "/p.yml",
                "-i",
                "/a.yml",
                "--shard",
                "1/4",
                "--remediate",
                "--to",
                "wanted"
            ]),
            "deploy drift /p.yml -i /a.yml --shard 1/4 --remediate --to wanted"
        );
        assert_eq!(
            words(&["runs", "undo", "r1", "-i", "/a.yml", "--yes"]),
            "deploy rollback -i /a.yml --yes --run r1"
        );
        assert_eq!(
            words(&["apply", "/p.json", "--on-failure", "stop"]),
            "deploy apply /p.json --on-failure stop"
        );
        for line in [
            &["inventory", "list", "-i", "x"][..],
            &["catalog"],
            &["runs", "-i", "x"],
        ] {
            let cli = Cli::try_parse_from([&["deploy"], line].concat()).expect("it parses");
            assert!(asked(&cli.verb).is_none());
        }
    }
}
