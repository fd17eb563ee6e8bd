//! Where a build comes from: the state of the profiles' repository, and the run of the CI. Found out before planning, and
//! kept with the plan.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Where a build comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Origin {
    /// The repository that holds the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The run of the CI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci: Option<CiRun>,
}

/// A state of a Git repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repository {
    /// The commit that is checked out.
    pub commit: String,
    /// Whether something differs from it: a file that it knows, or one of the profile's that it does not know.
    pub dirty: bool,
}

/// A run of a CI service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CiRun {
    /// The service: `Jenkins`, `GitHub Actions`, `GitLab`.
    pub service: String,
    /// Its number.
    pub number: String,
    /// Its page.
    pub url: String,
}

impl Origin {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl CiRun {
    /// The run that an environment tells of, by the names of the services' own documentation.
    #[must_use]
    pub fn of(environment: &BTreeMap<String, String>) -> Option<Self> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let run = |service: &str, number: Option<String>, url: String| Self {
            service: service.to_owned(),
            number: number.unwrap_or_default(),
            url,
        };
        if get("GITHUB_ACTIONS").is_some() {
            let (server, repository) = (get("GITHUB_SERVER_URL")?, get("GITHUB_REPOSITORY")?);
            let url = format!("{server}/{repository}/actions/runs/{}", get("GITHUB_RUN_ID")?);
            return Some(run("GitHub Actions", get("GITHUB_RUN_NUMBER"), url));
        }
        if get("GITLAB_CI").is_some() {
            return Some(run(
                "GitLab",
                get("CI_PIPELINE_IID"),
                get("CI_JOB_URL").or_else(|| get("CI_PIPELINE_URL"))?,
            ));
        }
        get("JENKINS_URL")?;
        Some(run("Jenkins", get("BUILD_NUMBER"), get("BUILD_URL")?))
    }
}

impl Repository {
    /// The state of the repository that holds these files, as `git` tells it; `None` where there is none, or no `git`.
    #[must_use]
    pub fn of(files: &[&Path]) -> Option<Self> {
        let first = std::path::absolute(files.first()?).ok()?;
        let folder = first.parent().filter(|folder| folder.is_dir())?;
        let git = |arguments: &[&str], more: &[&Path]| {
            let output = Command::new("git")
                // What a repository's own settings say may be run is not run for a look at it.
                .args(["-c", "core.fsmonitor=false", "-C"])
                .arg(folder)
                .args(arguments)
                .args(more)
                .env("GIT_OPTIONAL_LOCKS", "0")
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .output()
                .ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let commit = git(&["rev-parse", "HEAD"], &[])?;
        let changed = git(&["status", "--porcelain", "--untracked-files=no"], &[])?;
        let there: Vec<std::path::PathBuf> = files
            .iter()
            .filter_map(|file| std::path::absolute(file).ok())
            .filter(|file| file.is_file())
            .collect();
        let there: Vec<&Path> = there.iter().map(std::path::PathBuf::as_path).collect();
        // A file of another repository is no stranger to this one: then git fails, and only what it knows counts.
        let strange = git(&["status", "--porcelain", "--"], &there).unwrap_or_default();
        Some(Self { commit, dirty: !changed.is_empty() || !strange.is_empty() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_service_tells_the_number_and_the_page_of_its_run() {
        let found = |pairs: &[(&str, &str)]| {
            CiRun::of(&environment(pairs)).map(|run| (run.service, run.number, run.url))
        };
        let told = |service: &str, number: &str, url: &str| {
            Some((service.to_owned(), number.to_owned(), url.to_owned()))
        };
        let github = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_REPOSITORY", "acme/images"),
            ("GITHUB_RUN_ID", "123"),
            ("GITHUB_RUN_NUMBER", "7"),
        ];
        let url = "https://github.com/acme/images/actions/runs/123";
        assert_eq!(found(&github), told("GitHub Actions", "7", url));
        let gitlab = [
            ("GITLAB_CI", "true"),
            ("CI_PIPELINE_IID", "8"),
            ("CI_PIPELINE_URL", "https://gitlab/p/8"),
            ("CI_JOB_URL", "https://gitlab/j/80"),
        ];
        assert_eq!(found(&gitlab), told("GitLab", "8", "https://gitlab/j/80"));
        let jenkins = [
            ("JENKINS_URL", "https://ci/"),
            ("BUILD_NUMBER", "9"),
            ("BUILD_URL", "https://ci/job/images/9/"),
        ];
        assert_eq!(found(&jenkins), told("Jenkins", "9", "https://ci/job/images/9/"));
        assert_eq!(found(&[("BUILD_NUMBER", "9"), ("BUILD_URL", "x")]), None, "anybody may use these names");
    }

    #[test]
    fn a_repository_tells_its_commit_and_what_differs_from_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let git = |arguments: &[&str]| {
            let output = Command::new("git")
                .args(["-c", "user.name=x", "-c", "user.email=x@example.org", "-C"])
                .arg(folder.path())
                .args(arguments)
                .output();
            output.is_ok_and(|output| output.status.success())
        };
        let profile = folder.path().join("web.toml");
        std::fs::write(&profile, "schema = 1\n").expect("written");
        assert_eq!(Repository::of(&[&profile]), None, "it is in no repository");
        if !git(&["init", "-q"]) {
            return;
        }
        std::fs::write(folder.path().join("other"), "x").expect("written");
        assert!(git(&["add", "web.toml", "other"]) && git(&["commit", "-q", "-m", "first"]));
        let state = |files: &[&Path]| Repository::of(files).map(|found| (found.commit.len(), found.dirty));
        assert_eq!(state(&[&profile]), Some((40, false)));
        std::fs::write(folder.path().join("log"), "what builds leave").expect("written");
        assert_eq!(state(&[&profile]), Some((40, false)), "what nobody asked about may be there");
        let stranger = folder.path().join("base.toml");
        std::fs::write(&stranger, "schema = 1\n").expect("written");
        assert_eq!(state(&[&profile, &stranger]), Some((40, true)), "the commit does not know the base");
        std::fs::write(folder.path().join("other"), "y").expect("written");
        assert_eq!(state(&[&profile]), Some((40, true)));
    }
}
