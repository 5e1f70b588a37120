//! A `CronJob` of an Indexed Job: each index works on its own shard of the hosts.

use serde_json::json;

use super::{Kubernetes, Schedule, rendered};
use crate::content::Content;
use crate::error::Problems;
use crate::manifest::Tables;
use crate::yaml;

/// Where the container finds the project and the way to log in.
pub const PROJECT: &str = "/project";

pub(super) fn manifests(
    schedule: &Schedule,
    more: &Kubernetes,
    content: &Content,
) -> Result<String, Problems> {
    // Kubernetes fills in what looks like `$(NAME)`.
    let plain = |word: &String| word.replace("$(", "$$(");
    let mut words: Vec<String> = schedule.words.iter().map(plain).collect();
    if more.shards > 1 {
        words.extend([
            "--shard".to_owned(),
            format!("$(JOB_COMPLETION_INDEX)/{}", more.shards),
        ]);
    }
    words.extend(["--private-key".to_owned(), "/ssh/ssh-privatekey".to_owned()]);
    let vars = json!({
        "name": schedule.name.as_str(),
        "namespace": more.namespace,
        "schedule": schedule.every.crontab(),
        "every": schedule.every.to_string(),
        "seconds": schedule.every.seconds(),
        "image": more.image,
        "shards": more.shards,
        "words": words,
        "state_claim": more.state_claim,
        "project": more.mounts_project.then_some(PROJECT),
    });
    let text = rendered(content, TEMPLATE, &vars)?;
    check(&text, &Tables::load(content)?).or(text)
}

/// The template, which a project may replace.
const TEMPLATE: &str = "schedule_cronjob.j2";

/// What is wrong with the objects of a text of manifests, with positions in it. An object of a
/// kind that has no table is the project's own, and left to the cluster.
fn check(text: &str, tables: &Tables) -> Problems {
    let mut problems = Problems::default();
    let path = format!("{TEMPLATE} as rendered");
    for document in documents(text) {
        let (node, found) = yaml::load(path.as_ref(), &document);
        problems.extend(found);
        let Some(node) = node else { continue };
        let object = node.to_json();
        if tables.know(&object) {
            tables.tell(&object, Some(&node), &mut problems);
        }
    }
    problems
}

/// Each document with as many empty lines before it as there are lines, so that positions in it
/// are those in the whole.
fn documents(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut own = String::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_end() == "---" {
            all.push(std::mem::replace(&mut own, "\n".repeat(number + 1)));
        } else {
            own.push_str(line);
            own.push('\n');
        }
    }
    all.push(own);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_s_template_has_wrong_is_told_with_its_line() {
        let tables = Tables::load(&Content::shipped()).expect("the shipped tables are right");
        let text = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {}\n---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}\nspec:\n  schedule: '* * * * *'\n  concurrencyPolicy: Forbit\n  jobTemplate: {spec: {template: {}, complitions: 1}}\n";
        let told = check(text, &tables).to_string();
        for part in [
            "as rendered:11:22",
            "`spec.concurrencyPolicy` cannot be the string `Forbit`",
            "as rendered:12:",
            "no field `spec.jobTemplate.spec.complitions`",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert_eq!(documents(text).len(), 3);
    }
}
