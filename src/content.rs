//! The shipped playbooks, templates and model files, and the user's files that replace them.
//!
//! Everything that is shipped is embedded in the binary. A project folder with the same three
//! folders replaces it file by file. The project is read once, here, so that the rest of the
//! program sees one unchanging set of texts. This room does not know what the files mean.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::error::{Diagnostic, Problems};
use crate::value::Loaded;

static PLAYBOOKS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/playbooks");
static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static VARS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/vars");

/// The largest file of a project that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// The most files that are read from one folder of a project.
const MOST_FILES: usize = 4096;
/// How deep folders inside `playbooks/`, `templates/` and `vars/` may lie.
const DEEPEST: usize = 8;

/// The three folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// `playbooks/`
    Playbooks,
    /// `templates/`
    Templates,
    /// `vars/`
    Vars,
}

impl Folder {
    /// All of them.
    pub const ALL: [Folder; 3] = [Self::Playbooks, Self::Templates, Self::Vars];

    /// The folder's name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Playbooks => "playbooks",
            Self::Templates => "templates",
            Self::Vars => "vars",
        }
    }

    fn embedded(self) -> &'static Dir<'static> {
        match self {
            Self::Playbooks => &PLAYBOOKS,
            Self::Templates => &TEMPLATES,
            Self::Vars => &VARS,
        }
    }
}

/// A file, shipped or the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// The content.
    pub text: String,
    /// Where it stands: the user's path, or a made-up one such as `<shipped>/vars/x.yml`.
    pub path: PathBuf,
    /// Whether it is the user's and differs from the shipped file of the same name.
    pub overridden: bool,
}

/// All files of the three folders, the user's in front of the shipped ones.
#[derive(Debug, Clone)]
pub struct Content {
    project: Option<PathBuf>,
    files: BTreeMap<(Folder, String), Shipped>,
}

impl Content {
    /// What the binary brings, and nothing of the user's.
    #[must_use]
    pub fn shipped() -> Self {
        let mut files = BTreeMap::new();
        for folder in Folder::ALL {
            for (name, text) in embedded(folder) {
                let path = Path::new("<shipped>").join(folder.name()).join(&name);
                let shipped = Shipped {
                    text: text.to_owned(),
                    path,
                    overridden: false,
                };
                files.insert((folder, name), shipped);
            }
        }
        Self {
            project: None,
            files,
        }
    }

    /// What the binary brings, with the files of the project in front: of `project` if it is
    /// given, or else of the nearest folder at or above the first inventory that has a
    /// `playbooks/`. A project that others may write is an error if it was named, and is left
    /// alone with a warning if it was found.
    #[must_use]
    pub fn find(project: Option<&Path>, inventories: &[PathBuf]) -> Loaded<Self> {
        let mut content = Self::shipped();
        let mut problems = Problems::default();
        let root = match project {
            Some(folder) if !folder.is_dir() => {
                problems.push(
                    Diagnostic::error(format!("`{}` is not a folder", folder.display()))
                        .hint("`--project` names the folder that has your playbooks/, templates/ and vars/"),
                );
                return (content, problems);
            }
            Some(folder) => folder.to_owned(),
            None => match inventories.iter().find_map(|path| project_above(path)) {
                Some(folder) => folder,
                None => return (content, problems),
            },
        };
        if let Some(open) = writable_by_others(&root) {
            let message = format!("`{}` can be written by everybody", open.display());
            let finding = if project.is_some() {
                Diagnostic::error(message)
            } else {
                Diagnostic::warning(format!("{message}: the project there is not used"))
            };
            let hint = format!("chmod o-w '{}'", open.display());
            problems.push(finding.hint(hint));
            return (content, problems);
        }
        for folder in Folder::ALL {
            let mut found = Vec::new();
            list(&root.join(folder.name()), "", 0, &mut found, &mut problems);
            for (name, path) in found {
                content.put(folder, name, path, &mut problems);
            }
        }
        content.project = Some(root);
        (content, problems)
    }

    fn put(&mut self, folder: Folder, name: String, path: PathBuf, problems: &mut Problems) {
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(reason) => {
                // A stray file is the user's business unless it stands in for one of ours.
                if self.files.contains_key(&(folder, name)) {
                    let message = format!("`{}` cannot be used: {reason}", path.display());
                    problems.push(Diagnostic::error(message));
                }
                return;
            }
        };
        let overridden = self
            .files
            .get(&(folder, name.clone()))
            .is_some_and(|shipped| shipped.text != text);
        let file = Shipped {
            text,
            path,
            overridden,
        };
        self.files.insert((folder, name), file);
    }

    /// The user's project folder, if there is one.
    #[must_use]
    pub fn project(&self) -> Option<&Path> {
        self.project.as_deref()
    }

    /// The file of that name in a folder; folders inside it are written with `/`.
    #[must_use]
    pub fn file(&self, folder: Folder, name: &str) -> Option<Shipped> {
        self.files.get(&(folder, name.to_owned())).cloned()
    }

    /// A playbook, such as `gpu.yml`.
    #[must_use]
    pub fn playbook(&self, name: &str) -> Option<Shipped> {
        self.file(Folder::Playbooks, name)
    }

    /// A template, such as `mig_config.j2`.
    #[must_use]
    pub fn template(&self, name: &str) -> Option<Shipped> {
        self.file(Folder::Templates, name)
    }

    /// A variables file, such as `nvidia_gpu_models.yml`.
    #[must_use]
    pub fn vars_file(&self, name: &str) -> Option<Shipped> {
        self.file(Folder::Vars, name)
    }

    /// The names of all files of a folder, sorted.
    pub fn names(&self, folder: Folder) -> impl Iterator<Item = &str> {
        self.files
            .keys()
            .filter(move |(of, _)| *of == folder)
            .map(|(_, name)| name.as_str())
    }

    /// The user's files that stand in for shipped ones and differ from them.
    #[must_use]
    pub fn overridden(&self) -> Vec<&Path> {
        self.files
            .values()
            .filter(|file| file.overridden)
            .map(|file| file.path.as_path())
            .collect()
    }
}

/// What `export` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files that were written.
    pub written: Vec<PathBuf>,
    /// Files that were there already, and were left as they are.
    pub kept: Vec<PathBuf>,
}

/// Writes the shipped files below `target`. A file that is there already is never overwritten.
///
/// # Errors
/// Names the first file that could not be written.
pub fn export(target: &Path) -> Result<Exported, Diagnostic> {
    let mut done = Exported::default();
    for folder in Folder::ALL {
        for (name, text) in embedded(folder) {
            let path = target.join(folder.name()).join(&name);
            // A dangling link is something that is there, too.
            if fs::symlink_metadata(&path).is_ok() {
                done.kept.push(path);
                continue;
            }
            let parent = path.parent().unwrap_or(target);
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, text))
                .map_err(|e| {
                    Diagnostic::error(format!("cannot write `{}`: {e}", path.display()))
                        .hint("the folder must be one in which you may make files")
                })?;
            done.written.push(path);
        }
    }
    Ok(done)
}

/// The embedded files of a folder with their names relative to it. Hidden files only keep a
/// folder in the repository.
fn embedded(folder: Folder) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.embedded()];
    while let Some(dir) = folders.pop() {
        folders.extend(dir.dirs());
        for file in dir.files() {
            let name = file.path().to_string_lossy().into_owned();
            if !hidden(&name)
                && let Some(text) = file.contents_utf8()
            {
                found.push((name, text));
            }
        }
    }
    found.sort();
    found
}

fn hidden(name: &str) -> bool {
    name.rsplit('/')
        .next()
        .is_none_or(|last| last.starts_with('.'))
}

/// The nearest folder at or above `inventory` that has a `playbooks/`. An inventory that is no
/// path (`host1,host2`) has none.
/// The project that a file or folder belongs to: the nearest folder at or above it that has a
/// `playbooks/`.
pub(crate) fn project_above(inventory: &Path) -> Option<PathBuf> {
    let inventory = fs::canonicalize(inventory).ok()?;
    inventory
        .ancestors()
        .find(|folder| folder.join(Folder::Playbooks.name()).is_dir())
        .map(Path::to_owned)
}

/// The first of a project's folders that everybody may write. The sticky bit does not help:
/// anybody could still add a template of a name that is asked for.
fn writable_by_others(root: &Path) -> Option<PathBuf> {
    let mut folders = vec![root.to_owned()];
    folders.extend(Folder::ALL.map(|folder| root.join(folder.name())));
    folders.into_iter().find(|path| open_to_all(path))
}

fn open_to_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o002 != 0)
}

fn read_text(path: &Path) -> Result<String, String> {
    let found = fs::metadata(path).map_err(|e| e.to_string())?;
    if found.len() > LARGEST_FILE {
        return Err(format!("it is larger than {} KiB", LARGEST_FILE / 1024));
    }
    if open_to_all(path) {
        return Err("everybody can write it".to_owned());
    }
    let bytes = fs::read(path).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// All regular files below `folder`, named relative to it with `/`.
fn list(
    folder: &Path,
    prefix: &str,
    depth: usize,
    found: &mut Vec<(String, PathBuf)>,
    problems: &mut Problems,
) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let Some(last) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let name = format!("{prefix}{last}");
        if hidden(&name) {
            continue;
        }
        if found.len() >= MOST_FILES {
            let message = format!("`{}` has more than {MOST_FILES} files", folder.display());
            problems.push(Diagnostic::warning(message).hint("the rest of them is not read"));
            return;
        }
        if path.is_file() {
            found.push((name, path));
        } else if path.is_dir() && depth < DEEPEST {
            list(&path, &format!("{name}/"), depth + 1, found, problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["playbooks", "vars", "inventories/demo"] {
            fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        folder
    }

    #[test]
    fn every_file_on_disk_is_embedded() {
        // `include_dir` does not notice new files: after adding one, touch this file.
        for folder in Folder::ALL {
            let mut found = Vec::new();
            let mut problems = Problems::default();
            let on_disk = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder.name());
            list(&on_disk, "", 0, &mut found, &mut problems);
            let on_disk: Vec<String> = found.into_iter().map(|(name, _)| name).collect();
            let mut names: Vec<String> = embedded(folder).into_iter().map(|f| f.0).collect();
            names.sort();
            assert_eq!(names, on_disk, "{}", folder.name());
        }
    }

    #[test]
    fn a_users_file_replaces_the_shipped_one_and_is_named() {
        let folder = project();
        let name = "vars/amd_gpu_models.yml";
        fs::write(folder.path().join(name), "vendor: amd\nmodels: {}\n").expect("a file");
        let inventory = folder.path().join("inventories/demo");
        let (content, problems) = Content::find(None, &[inventory]);
        assert_eq!(problems, Problems::default());
        let file = content.vars_file("amd_gpu_models.yml").expect("the file");
        assert_eq!(file.text, "vendor: amd\nmodels: {}\n");
        assert!(file.overridden);
        let shown: Vec<String> = content
            .overridden()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(shown.len(), 1);
        assert!(shown[0].ends_with(name));
        let other = content.vars_file("nvidia_gpu_models.yml").expect("shipped");
        assert!(!other.overridden && other.path.starts_with("<shipped>"));
    }

    #[test]
    fn a_copy_without_a_difference_overrides_nothing() {
        let folder = project();
        export(folder.path()).expect("an empty project takes all files");
        let (content, problems) = Content::find(Some(folder.path()), &[]);
        assert_eq!(problems, Problems::default());
        assert!(content.overridden().is_empty());
        assert_eq!(content.project(), Some(folder.path()));
    }

    #[test]
    fn a_folder_that_everybody_may_write_is_never_a_project() {
        let folder = project();
        let open = folder.path().join("vars");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("a mode");
        fs::write(open.join("amd_gpu_models.yml"), "x").expect("a file");

        let (content, problems) = Content::find(Some(folder.path()), &[]);
        assert!(problems.has_errors());
        assert!(content.overridden().is_empty());

        let (content, problems) = Content::find(None, &[folder.path().join("inventories")]);
        assert!(!problems.has_errors());
        assert_eq!(problems.0.len(), 1);
        assert!(content.project().is_none() && content.overridden().is_empty());
    }

    #[test]
    fn export_keeps_what_is_there() {
        let folder = project();
        let mine = folder.path().join("vars/intel_gpu_models.yml");
        fs::write(&mine, "mine").expect("a file");
        let done = export(folder.path()).expect("the folder can be written");
        assert_eq!(done.kept, std::slice::from_ref(&mine));
        assert_eq!(fs::read_to_string(&mine).expect("still there"), "mine");
        let other = folder.path().join("vars/nvidia_gpu_models.yml");
        assert!(done.written.contains(&other) && other.exists());
    }

    #[test]
    fn an_inventory_that_is_no_path_has_no_project() {
        let (content, problems) = Content::find(None, &[PathBuf::from("a,b,")]);
        assert!(content.project().is_none());
        assert_eq!(problems, Problems::default());
        assert!(content.vars_file("nvidia_gpu_models.yml").is_some());
    }

    #[test]
    fn a_file_that_cannot_be_used_in_place_of_ours_is_an_error_and_a_stray_one_is_not() {
        let folder = project();
        fs::write(folder.path().join("vars/picture.png"), [0xff, 0xfe]).expect("a file");
        let (_, problems) = Content::find(Some(folder.path()), &[]);
        assert_eq!(problems, Problems::default());
        let name = folder.path().join("vars/amd_gpu_models.yml");
        fs::write(name, [0xff, 0xfe]).expect("a file");
        let (_, problems) = Content::find(Some(folder.path()), &[]);
        assert!(problems.to_string().contains("not UTF-8"), "{problems}");
    }
}
