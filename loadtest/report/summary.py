"""The same tables for people: on the terminal and in Markdown."""

STATS = ("p50", "p95", "p99", "max")
NOT_WAITING = {"late": "connected too late", "unconnected": "could not connect before T0", "reconnected": "had to connect again"}


def sections(figures):
    """[(title, headings, rows)]; the first column is text, the others are numbers."""
    answers, users, audit = figures["answers"], figures["users"], figures["audit"]
    counts = [(word, number(count)) for word, count in answers.items()]
    # What "other refusals" and "transport errors" were; 503 and 429 have their own line already.
    counts += [(f"· {word}", number(count)) for word, count in figures["refusals"].items() if not word.endswith(("(503)", "(429)"))]
    ends = [
        ("asked", number(users["asked"])),
        ("have a coupon", f"{number(users['won'])} of {number(users['expected_winners'])}"),
        ("were told SOLD_OUT in the end", number(users["sold_out"])),
        ("no final answer", number(users["asked"] - users["won"] - users["sold_out"] - users["refused"])),
    ]
    if figures["dropped"]:
        ends.append(("never came: k6 had no worker left for them", number(figures["dropped"])))
    ceiling = figures["ceiling"]
    for crowd, where in ((figures, ""), (ceiling, ", at the constant answer")):
        for name, words in NOT_WAITING.items() if crowd else ():
            if crowd["not_waiting_at_t0"][name]:
                ends.append((words + where, number(crowd["not_waiting_at_t0"][name])))
    times = [("to one request", *(number(figures["answer_ms"][stat]) for stat in STATS))]
    # Where users come one after the other, the time since T0 is when they came.
    if figures["scenario"] == "burst":
        times.append(("since T0", *(number(figures["since_t0_ms"][stat]) for stat in STATS)))
    if ceiling:
        times.append(("since T0, at a constant answer", *(number(ceiling["since_t0_ms"][stat]) for stat in STATS)))
    whole = [
        ("requests a second, T0 to the last answer", number(figures["requests_per_second"])),
        ("T0 to the last answer", f"{number(figures['last_answer_ms'])} ms"),
        *([("the same, against a constant answer", f"{figures['last_answer_ms'] / ceiling['last_answer_ms']:.2f} times as long")] if ceiling else []),
        ("T0 to the last one ISSUED", "-" if figures["last_issued_ms"] is None else f"{number(figures['last_issued_ms'])} ms"),
        (
            "audit",
            f"{'clean' if audit['clean'] else 'NOT CLEAN'}: exit code {audit['status']}, violations {number(audit['violations'])}, "
            f"rows {number(audit['issued'])}, unwritten {number(audit['unwritten'])}, dead letters {number(audit['dead_letters'])}",
        ),
    ]
    processes = [(p["process"], f"{p['cpu_seconds']:,.2f}", number(p["peak_mib"])) for p in figures["processes"]]
    return [
        ("Answers", ("answer", "requests"), counts),
        ("Users", ("user", "users"), ends),
        ("Time to answer, ms", ("answer", *STATS), times),
        ("The whole", ("", ""), whole),
        ("Processes, from start to audit", ("process", "CPU seconds", "peak MiB"), processes),
    ]


def number(value):
    return "not known" if value is None else f"{value:,}"


def headline(figures):
    parts = "embedded parts" if figures["stack"] == "embedded" else f"distributed parts, {figures['apis']} x api and {figures['consumers']} x consumer"
    return f"{figures['scenario']} on {parts}"


def verdict(figures):
    if figures["faults"]:
        return "FAILED\n" + "\n".join(f"  - {fault}" for fault in figures["faults"])
    return "PASSED: every user has a final answer, nobody was told what cannot be, and the books agree"


def terminal(figures):
    lines = ["", headline(figures)]
    for title, headings, rows in sections(figures):
        lines += ["", title if len(headings) < 3 else f"{title:<34}" + "".join(f"{heading:>12}" for heading in headings[1:])]
        for first, *rest in rows:
            if len(rest) == 1 and not rest[0][:1].isdigit():
                lines.append(f"  {first:<42}  {rest[0]}")
            elif len(rest) == 1:
                lines.append(f"  {first:<42}{rest[0]:>16}")
            else:
                lines.append(f"  {first:<32}" + "".join(f"{cell:>12}" for cell in rest))
    return "\n".join([*lines, "", verdict(figures)])


def markdown(figures, plots):
    lines = [f"# {headline(figures)}", "", f"**{verdict(figures)}**" if not figures["faults"] else verdict(figures), ""]
    for title, headings, rows in sections(figures):
        lines += [f"## {title}", "", table(headings, rows), ""]
    if plots:
        lines += ["## Over time", ""]
        lines += [f"![{name.removesuffix('.png')}]({name})\n" for name in plots]
    lines += ["k6's own report: [k6.html](k6.html)", "", "## How it was made", "", "```sh", figures["command"], "```", ""]
    facts = [*figures["machine"].items(), *figures["versions"].items(), *figures["servers"].items()]
    lines += [table(("", ""), facts, numbers=False), ""]
    return "\n".join(lines)


def table(headings, rows, numbers=True):
    ruler = ["---"] + ["---:" if numbers else "---"] * (len(headings) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [headings, ruler, *rows])
