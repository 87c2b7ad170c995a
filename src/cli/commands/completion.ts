// `trilith completion bash|zsh|fish`: prints the script that has a shell complete commands, flags and names.
import { InputError } from "../../base/error.ts";
import { type Command, printable } from "../io.ts";

/** The scripts ask this program itself: new commands and flags are completed without a new script. */
const SCRIPTS: Readonly<Record<string, (program: string, name: string) => string>> = {
  bash: (program, name) => `# ${program}'s completion for bash: source <(${program} completion bash)
_${name}_complete() {
  # Bash cuts words at "=" and ":"; put together again they are what was typed.
  local -a words=()
  local i glue= word
  for ((i = 1; i <= COMP_CWORD; i++)); do
    word="\${COMP_WORDS[i]}"
    if [[ \${#words[@]} -gt 0 && ( "$word" == [=:] || -n "$glue" ) && ( -n "$word" || $i -eq $COMP_CWORD ) ]]; then
      words[\${#words[@]}-1]+="$word"
      if [[ "$word" == [=:] ]]; then glue=1; else glue=; fi
    else
      words+=("$word")
      glue=
    fi
  done
  local whole="\${words[\${#words[@]}-1]}"
  # Bash puts a candidate in the place of the last piece only.
  local head=
  case "\${COMP_WORDS[COMP_CWORD]}" in
    = | :) head="$whole" ;;
    *) head="\${whole%"\${COMP_WORDS[COMP_CWORD]}"}" ;;
  esac
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("$(printf '%q' "\${line#"$head"}")")
  done < <(command ${program} completion --candidates -- "\${words[@]}" 2>/dev/null)
  if [[ \${#COMPREPLY[@]} -eq 1 && "\${COMPREPLY[0]}" == */ ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _${name}_complete ${program}
`,
  zsh: (program, name) => `#compdef ${program}
# ${program}'s completion for zsh: source <(${program} completion zsh)
_${name}_complete() {
  local -a found
  local line
  while IFS= read -r line; do found+=("$line"); done < <(command ${program} completion --candidates -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( \${#found} == 0 )); then
    _files
  elif [[ \${#found} -eq 1 && "\${found[1]}" == */ ]]; then
    compadd -S '' -- "\${(@)found}"
  else
    compadd -- "\${(@)found}"
  fi
}
if [[ "\${funcstack[1]}" == "_${name}_complete" || "\${funcstack[1]}" == "_${program}" ]]; then _${name}_complete "$@"; else compdef _${name}_complete ${program}; fi
`,
  fish: (program, name) => `# ${program}'s completion for fish: ${program} completion fish | source
function _${name}_complete
  set -g _${name}_found (command ${program} completion --candidates --about -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)
  set -q _${name}_found[1]
end
# Files are offered where there is nothing else.
complete -c ${program} -n _${name}_complete -f -a '$_${name}_found'
`,
};

interface Options {
  readonly candidates?: boolean;
  readonly about?: boolean;
  readonly program: string;
}

export const command: Command = {
  name: "completion",
  summary: "print a script that completes commands, flags and names: source <(trilith completion bash)",
  define(parser, io, done) {
    parser
      .argument("[words...]", "bash, zsh or fish; with --candidates the words of a line so far, behind --")
      .option("--program <name>", "the name it is called by, for an alias such as consul", "trilith")
      .option("--candidates", "what may stand in the place of the last word (what the scripts ask)")
      .option("--about", "with --candidates: say what each one is")
      .action(async (words: readonly string[], options: Options) => {
        if (options.candidates) {
          const { candidates } = await import("../complete.ts");
          for (const { word, about } of await candidates(words, io)) {
            // A name with a line break would come out as two.
            if (printable(word) !== word) continue;
            io.out(options.about && about !== "" ? `${word}\t${printable(about)}\n` : `${word}\n`);
          }
          return done(0);
        }
        const [shell = "", ...more] = words;
        const script = Object.hasOwn(SCRIPTS, shell) ? SCRIPTS[shell] : undefined;
        if (script === undefined || more.length > 0)
          throw new InputError("shell", `"${words.join(" ")}": expected bash, zsh or fish`);
        if (!/^[A-Za-z0-9_.-]+$/.test(options.program))
          throw new InputError(
            "--program",
            `"${options.program}": expected a name of letters, digits, "_", "." and "-"`,
          );
        io.out(script(options.program, options.program.replace(/[^A-Za-z0-9_]/g, "_")));
        done(0);
      });
  },
};
