"""What people do with a suggestion, one scenario each."""

from __future__ import annotations

from tests.e2e.person import CARET, Person, Scenarios

scenarios = Scenarios()

PYTHON = f'''"""Orders."""

RATE = 0.2


def total(items):
    {CARET}
'''
ABOVE = f'''"""Orders."""

RATE = 0.2


def total(items):
    count = len(items)
    {CARET}


def other():
    return RATE
'''
SCRIPT = f"""// Orders.
function computeTotal(items) {{
  return items.length;
}}

{CARET}
"""
TWO = f"""# Orders.


def total(items):
    {CARET}
    
    return items
"""
SUM = {"    subtotal = ": "sum(item.price for item in items)"}
BLOCK = {"    for item ": "in items:\n        subtotal += item.price\n        count += 1\n    return subtotal / count"}
UGLY = {"    rates ": "= [RATE]\n    lowest=min(rates)\n    highest=max(rates)"}
ASSIGN = {"const sum ": "= computeTotal(items);"}
FUNCTION = {"function mean": "(items){\nconst sum=computeTotal(items)\nreturn sum/items.length\n}"}


# -- taken ----------------------------------------------------------------------------------------------------------


@scenarios(SUM, text=PYTHON)
def tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Enter")
    p.types("return subtotal")


@scenarios(BLOCK, text=PYTHON)
def tab_block(p: Person) -> None:
    p.gets("for item ")
    p.presses("Tab", "Enter")


@scenarios(SUM, text=PYTHON.replace("\n", "\r\n"))
def tab_crlf(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Enter")
    p.types("return subtotal")


@scenarios({"\tfor item ": BLOCK["    for item "]}, text=PYTHON.replace("    ", "\t"))
def tab_where_tabs_indent(p: Person) -> None:
    p.gets("for item ")
    p.presses("Tab", "Enter")


@scenarios(SUM, text=PYTHON)
def tab_then_on(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab")
    p.types(" * RATE")
    p.presses("Enter")


@scenarios(SUM, text=PYTHON)
def through_then_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.types("sum", delay_ms=250)
    p.presses("Tab", "Enter")


@scenarios({**SUM, "    subtotal = sum(it": "em.price for item in items"}, text=PYTHON)
def through_a_bracket_then_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.types("sum(it", delay_ms=250)
    p.sees("em.price")
    p.waits(1)
    p.presses("Tab", "End", "Enter")


@scenarios(SUM, text=PYTHON)
def typed_out(p: Person) -> None:
    p.gets("subtotal = ")
    p.types(SUM["    subtotal = "], delay_ms=120)
    p.presses("Enter")


@scenarios(SUM, text=PYTHON)
def words_then_other(p: Person) -> None:
    p.gets("subtotal = ")
    p.takes("Control+ArrowRight", 3)
    p.types("cost for item in items)", delay_ms=120)
    p.presses("End", "Enter")
    p.types("return subtotal")


@scenarios({"    subtotal = ": "sum(items)"}, text=PYTHON)
def words_to_the_end(p: Person) -> None:
    p.gets("subtotal = ")
    p.takes("Control+ArrowRight", 4)
    p.presses("Enter")
    p.types("return subtotal")


@scenarios(SUM, text=PYTHON)
def word_then_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.takes("Control+ArrowRight", 2)
    p.waits(0.8)
    p.presses("Tab", "Enter")


@scenarios(SUM, text=PYTHON)
def word_then_undo(p: Person) -> None:
    p.gets("subtotal = ")
    p.takes("Control+ArrowRight")
    p.waits(0.8)
    p.presses("Control+z")
    p.waits(0.8)
    p.types("None", delay_ms=120)
    p.presses("Enter")


@scenarios(BLOCK, text=PYTHON)
def line_then_other(p: Person) -> None:
    p.gets("for item ")
    p.takes("Control+Alt+l", 2)
    p.waits(0.5)
    p.presses("Escape", "Enter")
    p.types("break", delay_ms=120)
    p.presses("Enter")


# -- taken, and then ------------------------------------------------------------------------------------------------


@scenarios(SUM, text=PYTHON)
def tab_then_edit(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "ArrowLeft", "Control+Shift+ArrowLeft")
    p.types("basket", delay_ms=120)
    p.presses("End", "Enter")
    p.types("return subtotal")


@scenarios(SUM, text=PYTHON)
def tab_then_undo(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab")
    p.waits(1)
    p.presses("Control+z")
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def tab_undo_redo(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab")
    p.waits(1)
    p.presses("Control+z")
    p.waits(0.5)
    p.presses("Control+y", "End", "Enter")
    p.types("return subtotal")


@scenarios(SUM, text=PYTHON)
def tab_undo_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab")
    p.waits(1)
    p.presses("Control+z")
    p.sees(SUM["    subtotal = "])
    p.waits(1.2)
    p.presses("Tab", "Enter")
    p.types("return subtotal")


@scenarios(BLOCK, text=PYTHON)
def tab_then_lines_removed(p: Person) -> None:
    p.gets("for item ")
    p.presses("Tab")
    p.waits(1)
    p.presses("Control+Shift+k", "Control+Shift+k")
    p.waits(0.5)


@scenarios(SUM, text=PYTHON)
def tab_then_backspaces(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab")
    p.waits(0.5)
    p.presses(*["Control+Backspace"] * 8)
    p.types("0", delay_ms=120)
    p.presses("Enter")


@scenarios(SUM, text=PYTHON)
def tab_then_paste_over(p: Person) -> None:
    p.types("count = len(items)")
    p.presses("Escape", "Shift+Home", "Control+c", "End", "Enter")
    p.gets("subtotal = ")
    p.presses("Tab")
    p.waits(0.5)
    p.presses("Shift+Home", "Control+v", "End", "Enter")


@scenarios(SUM, text=ABOVE)
def tab_then_line_moved(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Alt+ArrowUp")
    p.waits(0.5)


@scenarios(BLOCK, text=ABOVE)
def tab_then_block_moved(p: Person) -> None:
    p.gets("for item ")
    p.presses("Tab", *["Shift+ArrowUp"] * 3, "Alt+ArrowUp")
    p.waits(0.5)


@scenarios(SUM, text=ABOVE)
def tab_then_commented_out(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+/")
    p.waits(0.5)


@scenarios(BLOCK, text=ABOVE)
def tab_then_indented(p: Person) -> None:
    p.gets("for item ")
    p.presses("Tab", *["Shift+ArrowUp"] * 3, "Control+]")
    p.waits(0.5)


# -- not taken ------------------------------------------------------------------------------------------------------


@scenarios(SUM, text=PYTHON)
def typed_otherwise(p: Person) -> None:
    p.gets("subtotal = ")
    p.types("0", delay_ms=120)
    p.presses("Enter")
    p.types("return subtotal")


@scenarios(SUM, text=PYTHON)
def through_then_otherwise(p: Person) -> None:
    p.gets("subtotal = ")
    p.types("sum(prices)", delay_ms=200)
    p.presses("End", "Enter")
    p.types("return subtotal")


@scenarios(SUM, text=PYTHON)
def slip_then_through_then_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.types("x", delay_ms=200)
    p.waits(0.5)
    p.presses("Backspace")
    p.sees(SUM["    subtotal = "])
    p.waits(1)
    p.presses("Tab", "Enter")


@scenarios(SUM, text=PYTHON)
def escape_then_otherwise(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Escape")
    p.types("0", delay_ms=120)
    p.presses("Enter")


@scenarios(SUM, text=ABOVE)
def escape_then_elsewhere(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Escape", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "End")
    p.types(" * 2", delay_ms=120)


@scenarios(SUM, text=ABOVE)
def moved_away(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown", "End")
    p.types(" * 2", delay_ms=120)


@scenarios(SUM, text=PYTHON)
def blurred(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("F1")
    p.waits(2)
    p.presses("Escape")
    p.waits(0.5)


@scenarios(SUM, text=PYTHON)
def blurred_then_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("F1")
    p.waits(1)
    p.presses("Escape")
    p.presses("Alt+\\")
    p.sees(SUM["    subtotal = "])
    p.waits(0.5)
    p.presses("Tab", "Enter")


@scenarios(SUM, text=PYTHON)
def left_for_another_file(p: Person) -> None:
    p.gets("subtotal = ")
    p.bench.open_file("first.py")
    p.waits(1)
    p.bench.open_file(p.scenario.file)
    p.types("0", delay_ms=120)
    p.presses("End", "Enter")


@scenarios(SUM, text=PYTHON)
def never_seen(p: Person) -> None:
    p.gets("subtotal = ", looks_s=0)
    p.types("0", delay_ms=20)
    p.presses("Enter")


@scenarios({**SUM, "    subtotal = sum(x": ".price for x in items"}, text=PYTHON)
def another_suggestion_after_divergence(p: Person) -> None:
    p.gets("subtotal = ")
    p.types("sum(x", delay_ms=200)
    p.sees(".price for x in items")
    p.waits(1.2)
    p.presses("Tab", "End", "Enter")


# -- by other means -------------------------------------------------------------------------------------------------


@scenarios({"    subtotal = ": "len(items)"}, text=PYTHON)
def pasted_the_same(p: Person) -> None:
    p.types("len(items)")
    p.presses("Escape", "Shift+Home", "Control+x")
    p.gets("subtotal = ")
    p.presses("Control+v", "End", "Enter")


@scenarios(SUM, text=PYTHON)
def pasted_other(p: Person) -> None:
    p.types("len(items)")
    p.presses("Escape", "Shift+Home", "Control+x")
    p.gets("subtotal = ")
    p.presses("Control+v", "End", "Enter")


@scenarios({"    nearby = ": "items[0].price"}, text=PYTHON)
def neighbour_offers_the_same(p: Person) -> None:
    p.types("nearby = ")
    p.sees("items[0].price")
    p.waits(1.2)
    p.presses("Tab", "Enter")


@scenarios({"    farther = ": "items[0].price"}, text=PYTHON)
def neighbour_offers_more(p: Person) -> None:
    p.types("farther = ")
    p.bench.until(lambda: p.bench.ghost() != "", "ghost text", 20)
    p.waits(1.2)
    if p.bench.ghost() == "items[0].price":  # ours is on screen: the next one is the neighbour's
        p.presses("Alt+]")
    p.sees("items[0].price * RATE")
    p.waits(1)
    p.presses("Tab", "Enter")


@scenarios({"    distant = ": "items[0].price"}, text=PYTHON)
def neighbour_offers_other(p: Person) -> None:
    p.types("distant = ")
    p.bench.until(lambda: p.bench.ghost() != "", "ghost text", 20)
    p.waits(1.2)
    if p.bench.ghost().startswith("items[0]"):  # ours is on screen: the next one is the neighbour's
        p.presses("Alt+]")
    p.sees("round(RATE, 2)")
    p.waits(1)
    p.presses("Tab", "Enter")


@scenarios({"    subtotal = it": "ems_total"}, text=PYTHON)
def list_inserts_the_same(p: Person) -> None:
    p.gets("subtotal = it")
    p.presses("Control+Space")
    p.waits(1)
    p.presses("ArrowDown", "ArrowUp", "Enter")
    p.presses("Escape", "End", "Enter")


@scenarios({"    subtotal = it": "ems_total(RATE)"}, text=PYTHON)
def list_inserts_a_part(p: Person) -> None:
    p.gets("subtotal = it")
    p.presses("Control+Space")
    p.waits(1)
    p.presses("ArrowDown", "ArrowUp", "Enter")
    p.types("[0]", delay_ms=200)
    p.presses("End", "Enter")


@scenarios({"    subtotal = it": "em.price"}, text=PYTHON)
def list_inserts_other(p: Person) -> None:
    p.gets("subtotal = it")
    p.presses("Control+Space")
    p.waits(1)
    p.presses("ArrowDown", "ArrowUp", "Enter")
    p.presses("Escape", "End", "Enter")


# -- tools under the editor -----------------------------------------------------------------------------------------


@scenarios(UGLY, text=PYTHON)
def formatted(p: Person) -> None:
    p.gets("rates ")
    p.presses("Tab")
    p.waits(0.5)
    p.presses("Control+Shift+I")
    p.sees_line("lowest = min(rates)")
    p.presses("End", "Enter")


@scenarios(UGLY, text=PYTHON, settings={"editor.formatOnSave": True})
def formatted_on_save(p: Person) -> None:
    p.gets("rates ")
    p.presses("Tab")
    p.waits(0.5)
    p.presses("Control+s")
    p.sees_line("lowest = min(rates)")
    p.presses("End", "Enter")


@scenarios(FUNCTION, text=SCRIPT, suffix=".js")
def formatted_script(p: Person) -> None:
    p.gets("function mean")
    p.presses("Tab")
    p.waits(0.5)
    p.presses("Control+Shift+I")
    p.sees_line("const sum = computeTotal(items)")
    p.presses("End", "Enter")


@scenarios(ASSIGN, text=SCRIPT, suffix=".js")
def symbol_renamed_within(p: Person) -> None:
    p.gets("const sum ")
    p.presses("Tab", "ArrowLeft", *["Control+ArrowLeft"] * 3)
    p.waits(3)  # TypeScript reads the file
    p.presses("F2")
    p.waits(1)
    p.types("addUp", delay_ms=120)
    p.presses("Enter")
    p.sees_line("function addUp")


@scenarios(ASSIGN, text=SCRIPT, suffix=".js")
def symbol_renamed_around(p: Person) -> None:
    p.gets("const sum ")
    p.presses("Tab", "Home", "Control+ArrowRight", "Control+ArrowRight")
    p.waits(3)
    p.presses("F2")
    p.waits(1)
    p.types("amount", delay_ms=120)
    p.presses("Enter")
    p.sees_line("const amount")


@scenarios(SUM, text=PYTHON)
def file_renamed(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(0.5)
    p.commands("Neighbour: Rename This File")
    p.waits(1)
    p.bench.open_file(f"renamed_{p.scenario.file}")
    p.presses("Control+End", "Enter")
    p.types("# renamed", delay_ms=120)


@scenarios(SUM, text=PYTHON)
def file_renamed_then_undo(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(0.5)
    p.commands("Neighbour: Rename This File")
    p.waits(1)
    p.bench.open_file(f"renamed_{p.scenario.file}")
    p.presses("Control+z")
    p.waits(2)
    p.bench.open_file(p.scenario.file)
    p.presses("Control+z")
    p.waits(1)


@scenarios(SUM, text=TWO)
def cursors_typing_otherwise(p: Person) -> None:
    p.presses("Control+Alt+ArrowDown")
    p.types("subtotal = ")
    p.waits(1.5)
    p.types("0", delay_ms=120)
    p.presses("Escape", "Escape", "End", "Enter")


@scenarios(SUM, text=TWO)
def cursors_tab(p: Person) -> None:
    p.presses("Control+Alt+ArrowDown")
    p.gets("subtotal = ")
    p.presses("Tab", "Escape", "Escape", "End", "Enter")


@scenarios(SUM, text=TWO)
def cursors_through_then_tab(p: Person) -> None:
    p.presses("Control+Alt+ArrowDown")
    p.gets("subtotal = ")
    p.types("sum", delay_ms=250)
    p.waits(0.5)
    p.presses("Tab", "Escape", "Escape", "End", "Enter")


@scenarios({"    count = ": "len(items)"}, text=PYTHON)
def cursors_edit_what_was_taken(p: Person) -> None:
    p.gets("count = ")
    p.presses("Tab", "Enter")
    p.types("return items")
    p.presses("Escape", "Control+ArrowLeft", "Control+d", "Control+d", "Control+d")
    p.types("basket", delay_ms=120)
    p.presses("Escape", "End", "Enter")


@scenarios(SUM, text=PYTHON)
def checkout_after_tab(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.git("checkout", "-q", "-f", "other")
    p.sees_line("another state")
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def checkout_while_shown(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Control+s")
    p.waits(1)
    p.git("checkout", "-q", "-f", "other")
    p.sees_line("another state")
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def checkout_and_back(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.git("commit", "-q", "-a", "-m", "Add the sum")
    p.waits(2)
    p.git("checkout", "-q", "other")
    p.sees_line("another state")
    p.waits(2)
    p.git("checkout", "-q", "main")
    p.sees_line("subtotal")
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def restored_from_git(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.git("restore", p.scenario.file)
    p.bench.until(lambda: not any("subtotal" in line for line in p.bench.lines()), "the file as it was", 20)
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def program_changes_the_file(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.program(lambda text: "# written anew by a program\n" + text)
    p.sees_line("written anew")
    p.waits(1)


@scenarios(UGLY, text=PYTHON)
def program_formats_the_file(p: Person) -> None:
    p.gets("rates ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.program(lambda text: text.replace("=min", " = min").replace("=max", " = max"))
    p.sees_line("lowest = min")
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def program_replaces_the_line(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.program(lambda text: text.replace("subtotal = sum(item.price for item in items)", "raise NotImplementedError"))
    p.sees_line("raise NotImplementedError")
    p.waits(1)


@scenarios(SUM, text=PYTHON)
def closed_and_opened(p: Person) -> None:
    p.gets("subtotal = ")
    p.presses("Tab", "Control+s")
    p.waits(1)
    p.commands("View: Close Editor")
    p.waits(1)
    p.bench.open_file(p.scenario.file)
    p.waits(1)
