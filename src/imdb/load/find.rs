//! Which of IMDb's files a folder has.

use super::preflight::Found;
use crate::imdb::format::{LAYOUTS, Layout};
use crate::limits;
use std::fs;
use std::path::{Path, PathBuf};

/// How the name of a file may end, behind that of its layout.
const ENDS: [&str; 2] = [".tsv.gz", ".tsv"];

/// What IMDb's files are called inside of their packing, and so what some programs unpack them to.
const UNPACKED: &str = "data.tsv";

/// The files of a folder, in the order in which they are loaded.
///
/// # Errors
/// In words, all that is wrong: none of the files, or one of them twice.
pub fn find(folder: &Path) -> Result<Vec<Found>, String> {
    let seen = fs::metadata(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if !seen.is_dir() {
        let shown = folder.display();
        return Err(format!(
            "{shown} is no folder; name the folder that the files are in"
        ));
    }
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for layout in LAYOUTS {
        match one(folder, layout) {
            Ok(file) => found.extend(file),
            Err(why) => wrong.push(why),
        }
    }
    if found.is_empty() && wrong.is_empty() {
        let names: Vec<&str> = LAYOUTS.iter().map(|layout| layout.name).collect();
        wrong.push(format!(
            "{} has none of IMDb's files: {} (.tsv or .tsv.gz)",
            folder.display(),
            names.join(", ")
        ));
    }
    match wrong.is_empty() {
        true => Ok(found),
        false => Err(wrong.join("; ")),
    }
}

fn one(folder: &Path, layout: &'static Layout) -> Result<Option<Found>, String> {
    let names = ENDS.map(|end| format!("{}{end}", layout.name));
    // A link that leads nowhere is there too, and says so when it is opened.
    let is_there = |name: &&String| folder.join(name).symlink_metadata().is_ok();
    let there: Vec<&String> = names.iter().filter(is_there).collect();
    let name = match there[..] {
        [] => return Ok(None),
        [name] => name,
        _ => return Err(format!("{} are both there; keep one", names.join(" and "))),
    };
    let path = folder.join(name);
    match path.is_dir() {
        true => inside(&path, name, layout).map(Some),
        false => Ok(Some(Found {
            layout,
            path,
            name: name.clone(),
        })),
    }
}

/// The file in a folder that is called like it, as some archives unpack.
fn inside(folder: &Path, name: &str, layout: &'static Layout) -> Result<Found, String> {
    let wrong = |why: String| format!("{name} is a folder: {why}");
    let entries = fs::read_dir(folder).map_err(|error| wrong(error.to_string()))?;
    let mut names = Vec::new();
    for entry in entries.take(limits::LOAD_FOLDER_MAX) {
        let entry = entry.map_err(|error| wrong(error.to_string()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let fits = |found: &&String| {
        let of_layout = found.strip_prefix(layout.name);
        of_layout.is_some_and(|end| ENDS.contains(&end)) || *found == UNPACKED
    };
    match names.iter().filter(fits).collect::<Vec<_>>()[..] {
        [inner] => Ok(Found {
            layout,
            path: PathBuf::from_iter([folder, Path::new(inner)]),
            name: format!("{name}/{inner}"),
        }),
        ref several => {
            let shown: Vec<&str> = match several.is_empty() {
                true => names
                    .iter()
                    .take(limits::LOAD_FOLDER_SHOWN)
                    .map(String::as_str)
                    .collect(),
                false => several.iter().map(|name| name.as_str()).collect(),
            };
            let what = match (several.is_empty(), shown.is_empty()) {
                (false, _) => "there is more than one file that it could be",
                (true, true) => "it is empty",
                (true, false) => "none of what is in it is called like it",
            };
            let expected = format!("keep {}.tsv in it, or put that in its place", layout.name);
            Err(wrong(format!("{what} ({}); {expected}", shown.join(", "))))
        }
    }
}
