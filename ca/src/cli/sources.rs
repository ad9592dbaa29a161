//! Policy files, and the lists of digests beside them, from a directory.

use std::fs;
use std::path::{Path, PathBuf};

use edgeward_policy::SourceFile;
use edgeward_policy::source::{
    MAX_FILE_BYTES, MAX_FILES, MAX_LIST_FILE_BYTES, MAX_PATH_BYTES, POLICY_ENDING,
};

/// Deepest directory looked into.
const MAX_DEPTH: usize = 16;

/// Why a directory is no set of policy files.
#[derive(Debug, thiserror::Error)]
pub enum SourceFault {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: no policy files (*.toml) in it", .0.display())]
    Empty(PathBuf),
    #[error("{}: more than {MAX_FILES} policy files and lists", .0.display())]
    TooMany(PathBuf),
    #[error("{}: deeper than {MAX_DEPTH} directories", .0.display())]
    TooDeep(PathBuf),
    #[error("{}: larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: usize },
    #[error("{}: path is not text, or longer than {MAX_PATH_BYTES} bytes", .0.display())]
    Path(PathBuf),
    #[error("{}: not utf-8", .0.display())]
    NotText(PathBuf),
}

/// Every `*.toml`, `*.allow` and `*.deny` below `root` in the order of their paths; names that begin with a dot are
/// left out.
pub(super) fn read(root: &Path) -> Result<Vec<SourceFile>, SourceFault> {
    let mut files = Vec::new();
    walk(root, "", 0, &mut files)?;
    if files.iter().all(SourceFile::is_list) {
        return Err(SourceFault::Empty(root.to_owned()));
    }
    files.sort_by(|one: &SourceFile, other| one.path.cmp(&other.path));
    Ok(files)
}

fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<SourceFile>,
) -> Result<(), SourceFault> {
    if depth > MAX_DEPTH {
        return Err(SourceFault::TooDeep(folder.to_owned()));
    }
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| SourceFault::Path(path.clone()))?;
        if name.starts_with('.') {
            continue;
        }
        let relative = match prefix {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        };
        let about = fs::metadata(&path).map_err(io(&path))?;
        if about.is_dir() {
            walk(&path, &relative, depth + 1, files)?;
        } else if name.ends_with(POLICY_ENDING) || SourceFile::is_list_path(name) {
            files.push(read_one(&path, relative, about.len())?);
            if files.len() > MAX_FILES {
                return Err(SourceFault::TooMany(folder.to_owned()));
            }
        }
    }
    Ok(())
}

fn read_one(path: &Path, relative: String, size: u64) -> Result<SourceFile, SourceFault> {
    let limit = match SourceFile::is_list_path(&relative) {
        true => MAX_LIST_FILE_BYTES,
        false => MAX_FILE_BYTES,
    };
    if usize::try_from(size).map_or(true, |size| size > limit) {
        let path = path.to_owned();
        return Err(SourceFault::TooLarge { path, limit });
    }
    if relative.len() > MAX_PATH_BYTES {
        return Err(SourceFault::Path(path.to_owned()));
    }
    let bytes = fs::read(path).map_err(io(path))?;
    let text = String::from_utf8(bytes).map_err(|_| SourceFault::NotText(path.to_owned()))?;
    Ok(SourceFile::new(relative, text))
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> SourceFault {
    let path = path.to_owned();
    move |source| SourceFault::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_policy_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("README.md"), "x").unwrap();
        std::fs::write(folder.path().join(".hidden.toml"), "x").unwrap();
        std::fs::write(folder.path().join("x.allow"), "x").unwrap();
        assert!(matches!(read(folder.path()), Err(SourceFault::Empty(_))));
        assert!(matches!(
            read(&folder.path().join("none")),
            Err(SourceFault::Io { .. })
        ));
    }

    #[test]
    fn a_file_that_is_too_large_or_not_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES + 1]).unwrap();
        assert!(matches!(
            read(folder.path()),
            Err(SourceFault::TooLarge { limit, .. }) if limit == MAX_FILE_BYTES
        ));
        let list = folder.path().join("a.allow");
        std::fs::write(&path, "").unwrap();
        std::fs::write(&list, vec![b'#'; MAX_LIST_FILE_BYTES + 1]).unwrap();
        assert!(matches!(
            read(folder.path()),
            Err(SourceFault::TooLarge { limit, .. }) if limit == MAX_LIST_FILE_BYTES
        ));
        std::fs::remove_file(&list).unwrap();
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read(folder.path()), Err(SourceFault::NotText(_))));
    }

    #[test]
    fn files_are_found_below_and_sorted_by_path() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("b/c")).unwrap();
        for name in [
            "z.toml",
            "b/c/x.toml",
            "a.toml",
            "b/c/x.deny",
            "b/y.allow",
            "b/z.md",
        ] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let paths: Vec<String> = read(folder.path())
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        let expected = ["a.toml", "b/c/x.deny", "b/c/x.toml", "b/y.allow", "z.toml"];
        assert_eq!(paths, expected);
    }
}
