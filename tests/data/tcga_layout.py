"""Names, tables and folders of TCGA slides as the GDC hands them out; the slides are empty files."""

UUID = "9F0E3E1C-3C7B-4B5A-8F0D-6A1B2C3D4E5F"
SHEET = ["File ID", "File Name", "Data Category", "Data Type", "Project ID", "Case ID", "Sample ID", "Sample Type"]


def slide(case, code="01", section="TS1", participant="AB"):
    return f"TCGA-{participant}-{case:04}-{code}A-01-{section}.{UUID}.svs"


def manifest_row(name, index=0):
    return [f"id{index}", name, "d41d8cd98f00b204e9800998ecf8427e", "1024", "released"]


def sheet_row(name, project="TCGA-KIRC", index=0, **changed):
    case, sample = name[:12], name[:16]
    kind = "Solid Tissue Normal" if name[13:15] == "11" else "Primary Tumor"
    row = [f"id{index}", name, "Biospecimen", "Slide Image", project, case, sample, kind]
    return [changed.get(column.lower().replace(" ", "_"), cell) for column, cell in zip(SHEET, row, strict=True)]


def write_table(path, header, rows):
    path.write_text("\n".join("\t".join(cells) for cells in [header, *rows]) + "\n", encoding="utf-8")
    return path


def write_gdc_manifest(folder, names):
    header = ["id", "filename", "md5", "size", "state"]
    rows = [manifest_row(name, index) for index, name in enumerate(names)]
    return write_table(folder / "gdc_manifest.txt", header, rows)


def write_sheet(folder, rows):
    return write_table(folder / "gdc_sample_sheet.tsv", SHEET, rows)


def sheet_of_projects(folder, cases_a_project, slides_a_case=1, code="01"):
    projects = [(project, case) for project, count in cases_a_project.items() for case in range(count)]
    rows = [
        sheet_row(slide(index, code, f"TS{number}"), project, index)
        for index, (project, _) in enumerate(projects)
        for number in range(slides_a_case)
    ]
    return write_sheet(folder, rows)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder
