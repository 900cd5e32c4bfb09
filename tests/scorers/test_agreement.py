"""The three-way verdict, held against two audit sets: verdicts labelled by hand and every gold answer of a setting.

`audit_agreement.jsonl` was labelled before the scorer read it, in three parts. `dev` was in view while the rules were
written, and `held_out` was known to their author, so their first pass (0 of 142 and 0 of 85 wrong) says little. `fresh`
was written after the rules and then read for the first time: 25 of 108 wrong, 24 of them left unread and 1 read the
wrong way round; its faults were mended afterwards. So is `last`, FIRST_PASS_LAST.
"""
