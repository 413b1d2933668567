from tests.operators.test_approve import *
def test_no_answer(run_dag, tmp_path, warehouse, vendor):
    file = tmp_path / "silent.py"
    file.write_text("from datetime import timedelta\n" + DAG.replace("approvals","silent").replace("proposed=ask.output","proposed=ask.output, response_timeout=timedelta(seconds=2)"))
    run_dag(file)
    put_profiles(warehouse, [person(1), person(2), person(3, out=True), person(4)])
    _, states = run_dag(file)
    assert set(states.values()) == {"success"}
    assert len(vendor.contacts("news")) == 4
