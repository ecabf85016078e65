// SPDX-License-Identifier: Apache-2.0
//! `lacuna explain`: asks the running agent, and shows what it says.

use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::answer::Explanation;
use crate::api::Agent;
use crate::api::QUESTION_BYTES_MAX;
use crate::cli::EXIT_GOOD;
use crate::cli::ExplainArgs;
use crate::cli::Format;
use crate::cli::Question;
use crate::patience::Patience;
use crate::render;

/// Asks and shows.
///
/// # Errors
/// Nobody answers, nobody knows the trace, or the file cannot be read.
pub(crate) fn explain(args: &ExplainArgs) -> Result<ExitCode> {
    let question = args.question().context("nothing is asked")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let explanation = runtime.block_on(ask(args, question))?;
    let style = render::Style::of(&std::io::stdout(), args.verbose.verbose);
    let text = match args.format.format {
        Format::Json => render::json(&explanation)?,
        Format::Text => render::explanation(&explanation, style),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(ExitCode::from(EXIT_GOOD))
}

async fn ask(args: &ExplainArgs, question: Question) -> Result<Explanation> {
    let agent = Agent::at(args.agent.clone());
    let answer = async {
        match question {
            Question::Trace(id) => agent.trace(id.as_str(), args.wait).await,
            Question::Spans(path) => agent.explain(read(&path)?, args.wait).await,
        }
        .map_err(anyhow::Error::from)
    };
    let _patience = Patience::with("waiting until all spans can be answered completely");
    answer.await
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let limit = QUESTION_BYTES_MAX as u64;
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(limit + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read the spans in {}", path.display()))?;
    if bytes.len() as u64 > limit {
        bail!("{} is larger than {limit} bytes", path.display());
    }
    Ok(bytes)
}
