// SPDX-License-Identifier: Apache-2.0
//! Runs the distribution's tools. A failure says which tool, how, and what it printed.

use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

/// Runs a tool to its end and returns what it wrote to its standard output.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}: `make deps` installs what is needed"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// The same, for tools that write text.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?).into_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn a_failure_says_what_the_tool_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let said = format!("{:#}", super::run(&mut command).unwrap_err());
        assert!(said.contains("sh: exit status: 3: no such thing"), "{said}");
        let said = format!(
            "{:#}",
            super::run(&mut Command::new("no-such-tool")).unwrap_err()
        );
        assert!(said.contains("cannot start no-such-tool"), "{said}");
    }

    #[test]
    fn what_a_tool_writes_comes_back() {
        assert_eq!(super::text(Command::new("echo").arg("x")).unwrap(), "x\n");
    }
}
