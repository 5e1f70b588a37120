//! The settings that apply to one host, as types: texts are parsed, tokens and
//! variables replaced. Which of them apply, `ssh_config` has decided.

use std::path::PathBuf;
use std::time::Duration;

use super::known_hosts::HostKeyPolicy;
use super::ssh_config::{Setting, first, home, local_user, place, tilde};
use crate::error::{Diagnostic, Problems};

/// Which agent to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AgentChoice {
    /// The one of `SSH_AUTH_SOCK`.
    #[default]
    Environment,
    /// None.
    None,
    /// The socket at a path.
    Socket(PathBuf),
}

/// Which addresses of a name to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// All, in the resolver's order.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// The settings of one host, as far as they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostSettings {
    pub(crate) hostname: String,
    pub(crate) user: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) identity_files: Vec<PathBuf>,
    pub(crate) certificate_files: Vec<PathBuf>,
    pub(crate) identities_only: bool,
    pub(crate) agent: AgentChoice,
    pub(crate) proxy_jump: Option<String>,
    pub(crate) user_known_hosts: Option<Vec<PathBuf>>,
    pub(crate) global_known_hosts: Option<Vec<PathBuf>>,
    pub(crate) policy: Option<HostKeyPolicy>,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) alive_interval: Option<Duration>,
    pub(crate) alive_count: Option<usize>,
    pub(crate) host_key_alias: Option<String>,
    pub(crate) family: Family,
}

pub(crate) fn interpret(name: &str, taken: &[&Setting], problems: &mut Problems) -> HostSettings {
    let mut settings = HostSettings {
        hostname: name.to_owned(),
        ..HostSettings::default()
    };
    let mut wrong = |setting: &Setting, wanted: &str| {
        let message = format!(
            "`{}` of `{}` is not {wanted}",
            setting.words.join(" "),
            setting.keyword
        );
        problems.push(place(Diagnostic::error(message), setting));
    };
    if let Some(setting) = first(taken, "hostname") {
        settings.hostname = expand(&setting.words[0], &[('h', name), ('n', name)]);
    }
    if let Some(setting) = first(taken, "user") {
        settings.user = Some(setting.words[0].clone());
    }
    if let Some(setting) = first(taken, "port") {
        match setting.words[0].parse() {
            Ok(port) if port > 0 => settings.port = Some(port),
            _ => wrong(setting, "a port from 1 to 65535"),
        }
    }
    let port = settings.port.unwrap_or(22).to_string();
    let local = local_user();
    let user = settings.user.clone().unwrap_or_else(|| local.clone());
    let home = home().to_string_lossy().into_owned();
    let tokens = [
        ('h', settings.hostname.clone()),
        ('n', name.to_owned()),
        ('p', port),
        ('r', user),
        ('u', local),
        ('d', home),
    ];
    let tokens: Vec<(char, &str)> = tokens
        .iter()
        .map(|(letter, text)| (*letter, text.as_str()))
        .collect();
    let path = |word: &String| PathBuf::from(tilde(&expand(&environment(word), &tokens)));
    for setting in taken {
        let word = setting.words.first().map_or("", String::as_str);
        let lower = word.to_lowercase();
        let seconds = || word.parse().ok().map(Duration::from_secs);
        match setting.keyword.as_str() {
            "identityfile" if lower != "none" => settings
                .identity_files
                .extend(setting.words.first().map(&path)),
            "certificatefile" if lower != "none" => settings
                .certificate_files
                .extend(setting.words.first().map(&path)),
            "identitiesonly" => match yes(&lower) {
                Some(only) => settings.identities_only = only,
                None => wrong(setting, "`yes` or `no`"),
            },
            "identityagent" => {
                settings.agent = match word {
                    "none" => AgentChoice::None,
                    "SSH_AUTH_SOCK" => AgentChoice::Environment,
                    // `$NAME` means the socket that the variable names.
                    _ => match word.strip_prefix('$').filter(|rest| !rest.starts_with('{')) {
                        Some(variable) => std::env::var(variable)
                            .map_or(AgentChoice::None, |path| AgentChoice::Socket(path.into())),
                        None => AgentChoice::Socket(path(&setting.words[0])),
                    },
                };
            }
            "proxyjump" if lower != "none" => settings.proxy_jump = Some(expand(word, &tokens)),
            "proxycommand" if lower != "none" => match jump_of_command(&setting.words) {
                Some(jump) => settings.proxy_jump = Some(expand(&jump, &tokens)),
                None => {
                    let message = "`ProxyCommand` is not supported and applies to a host in use";
                    let hint =
                        "use `ProxyJump`; of commands only `ssh -W %h:%p HOST` is understood";
                    problems.push(place(Diagnostic::error(message).hint(hint), setting));
                    return settings;
                }
            },
            "userknownhostsfile" => settings.user_known_hosts = Some(files(&setting.words, path)),
            "globalknownhostsfile" => {
                settings.global_known_hosts = Some(files(&setting.words, path));
            }
            "stricthostkeychecking" => match lower.as_str() {
                "yes" | "true" | "ask" => settings.policy = Some(HostKeyPolicy::Strict),
                // There is no switch that lets a changed key pass.
                "accept-new" | "no" | "false" | "off" => {
                    settings.policy = Some(HostKeyPolicy::AcceptNew);
                }
                _ => wrong(setting, "`yes`, `ask`, `accept-new` or `no`"),
            },
            "connecttimeout" => match seconds() {
                Some(limit) => settings.connect_timeout = (!limit.is_zero()).then_some(limit),
                None if lower == "none" => {}
                None => wrong(setting, "a number of seconds"),
            },
            "serveraliveinterval" => match seconds() {
                Some(interval) => settings.alive_interval = Some(interval),
                None => wrong(setting, "a number of seconds"),
            },
            "serveralivecountmax" => match word.parse() {
                Ok(count) => settings.alive_count = Some(count),
                Err(_) => wrong(setting, "a number"),
            },
            "hostkeyalias" => settings.host_key_alias = Some(expand(word, &tokens)),
            "addressfamily" => match lower.as_str() {
                "any" => {}
                "inet" => settings.family = Family::V4,
                "inet6" => settings.family = Family::V6,
                _ => wrong(setting, "`any`, `inet` or `inet6`"),
            },
            _ => {}
        }
    }
    settings
}

fn files(words: &[String], path: impl Fn(&String) -> PathBuf) -> Vec<PathBuf> {
    words
        .iter()
        .filter(|word| word.as_str() != "none")
        .map(path)
        .collect()
}

pub(crate) fn yes(word: &str) -> Option<bool> {
    match word {
        "yes" | "true" | "on" | "1" => Some(true),
        "no" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// The jump that `ssh [-q] [-l user] [-p port] -W %h:%p [user@]host` stands for.
fn jump_of_command(words: &[String]) -> Option<String> {
    let text = words.join(" ");
    let mut words = text.split_whitespace();
    if !matches!(words.next()?, "ssh" | "/usr/bin/ssh") {
        return None;
    }
    let (mut forwards, mut user, mut port, mut host) = (false, None, None, None);
    while let Some(word) = words.next() {
        match word {
            "-W" => forwards = matches!(words.next()?, "%h:%p" | "[%h]:%p"),
            "-q" => {}
            "-l" => user = Some(words.next()?),
            "-p" => port = Some(words.next()?),
            other if other.starts_with('-') || host.is_some() => return None,
            other => host = Some(other),
        }
    }
    let host = host.filter(|_| forwards)?;
    let user = user.map_or(String::new(), |user| format!("{user}@"));
    let port = port.map_or(String::new(), |port| format!(":{port}"));
    Some(format!("{user}{host}{port}"))
}

/// Replaces `%x` by what `tokens` has for it; others stay as they are.
pub(crate) fn expand(text: &str, tokens: &[(char, &str)]) -> String {
    let mut done = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            done.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => done.push('%'),
            Some(letter) => match tokens.iter().find(|(known, _)| *known == letter) {
                Some((_, value)) => done.push_str(value),
                None => done.extend(['%', letter]),
            },
            None => done.push('%'),
        }
    }
    done
}

/// Replaces `${NAME}` by the environment's value.
fn environment(text: &str) -> String {
    let mut done = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        done.push_str(before);
        match after.split_once('}') {
            Some((name, after)) => {
                done.push_str(&std::env::var(name).unwrap_or_default());
                rest = after;
            }
            None => {
                done.push_str("${");
                rest = after;
            }
        }
    }
    done + rest
}
