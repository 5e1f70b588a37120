//! A line of a user's crontab.

use super::{Schedule, words};
use crate::shell::Command;

/// The comment and the line. One run at a time: `flock -n` leaves at once while another one
/// works, with a status of its own. The lock is a file in the user's home, where cron(8)
/// starts its jobs: one in a folder for all could be made by anybody.
pub(super) fn lines(schedule: &Schedule) -> String {
    let name = schedule.name.as_str();
    let job = Command::new("flock")
        .args(["-n", "-E", "75"])
        .arg(format!(".{name}.lock"))
        .arg(schedule.program.to_string_lossy())
        .args(&schedule.words);
    format!(
        "# {name}: {}. Add these lines with `crontab -e`; what is printed comes by mail.\n\
         # Exit status 75: the run before was still at work. What was missed is not made up for.\n\
         {} {}\n",
        schedule.every,
        schedule.every.crontab(),
        words::for_cron(&job),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Name;

    #[test]
    fn one_run_at_a_time_is_a_lock_in_the_home() {
        let schedule = Schedule {
            name: Name::parse("deploy-drift").expect("a name"),
            every: "30m".parse().expect("a span"),
            program: "/usr/bin/deploy".into(),
            words: ["drift", "-i", "/srv/a b.yml"].map(str::to_owned).to_vec(),
            reads: Vec::new(),
            writes: Vec::new(),
        };
        let text = lines(&schedule);
        assert!(
            text.ends_with(
                "*/30 * * * * flock -n -E 75 .deploy-drift.lock /usr/bin/deploy drift -i '/srv/a b.yml'\n"
            ),
            "{text}"
        );
    }
}
