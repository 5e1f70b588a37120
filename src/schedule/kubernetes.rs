//! A `CronJob` of an Indexed Job: each index works on its own shard of the hosts.

use serde_json::json;

use super::{Kubernetes, Schedule, rendered};
use crate::content::Content;
use crate::error::Problems;

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
    rendered(content, "schedule_cronjob.j2", &vars)
}
