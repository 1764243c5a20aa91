"""What cannot be, whatever the load. An empty list is a pass; a slow answer, a 503 or a 429 alone is none of it."""


def faults_of(figures):
    answers, users, audit = figures["answers"], figures["users"], figures["audit"]
    found = []

    def never(condition, words):
        if condition:
            found.append(words)

    never(users["asked"] == 0, "nobody asked")
    never(users["won"] > figures["stock"], f"{users['won']} users were told they have one of {figures['stock']}")
    never(
        users["won"] != users["expected_winners"],
        f"{users['won']} users have a coupon; with this stock and these users it must be {users['expected_winners']}",
    )
    ended = sum(users[end] for end in ("won", "sold_out", "refused"))
    never(ended != users["asked"], f"{users['asked'] - ended} of {users['asked']} users have no final answer")
    never(answers["other refusals"] or users["refused"], f"{answers['other refusals']} answers were a refusal that this scenario has no reason for")
    never(figures["contradictions"], f"{figures['contradictions']} answers contradict an earlier one")
    never(audit["status"] != 0 or not audit["clean"], f"the audit is not clean (exit code {audit['status']})")
    never(audit["unwritten"] != 0, f"the audit still finds {audit['unwritten']} accepted that are not written")
    never(audit["issued"] != users["won"], f"the ledger has {audit['issued']} rows, and {users['won']} users were told they have one")
    return found
